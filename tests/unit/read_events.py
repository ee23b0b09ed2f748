"""Prints the scalars of an event file as TensorBoard's own reader sees them: 'STEP TAG VALUE' a line.

Exit status 77 if TensorBoard cannot be imported.
"""

import sys

try:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
except ImportError as error:
    print(f"TensorBoard cannot be imported: {error}")
    sys.exit(77)

for event in LegacyEventFileLoader(sys.argv[1]).Load():
    for value in event.summary.value:
        # What a page shows: TensorBoard passes over a value that the file leaves out.
        assert value.HasField("simple_value"), f"{value.tag} has no value at step {event.step}"
        print(event.step, value.tag, f"{value.simple_value:.6g}")
