#include "kernels/library_version.h"

#include <ebur128.h>
#include <hdf5.h>
#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <samplerate.h>
#include <sndfile.h>
#include <string.h>
#include <xxhash.h>
#if MUSICRL_FLUIDSYNTH
#include <fluidsynth.h>
#endif

int data_library_versions(library_version *list, int capacity) {
    unsigned int major = 0;
    unsigned int minor = 0;
    unsigned int patch = 0;
    int count = 0;
    if (H5get_libversion(&major, &minor, &patch) >= 0)
        count = library_version_append(list, count, capacity, "HDF5", "%u.%u.%u", major, minor, patch);
    const char *sndfile = sf_version_string();
    count = library_version_append(list, count, capacity, "libsndfile", "%s",
                                   strncmp(sndfile, "libsndfile-", 11) == 0 ? sndfile + 11 : sndfile);
    // "libsamplerate-0.2.2 (c) 2002-2008 ..."
    const char *samplerate = src_get_version();
    samplerate += strcspn(samplerate, "0123456789");
    count = library_version_append(list, count, capacity, "libsamplerate", "%.*s",
                                   (int)strcspn(samplerate, " "), samplerate);
    int loudness[3] = {0};
    ebur128_get_version(&loudness[0], &loudness[1], &loudness[2]);
    count = library_version_append(list, count, capacity, "libebur128", "%d.%d.%d", loudness[0], loudness[1],
                                   loudness[2]);
#if MUSICRL_FLUIDSYNTH
    count = library_version_append(list, count, capacity, "FluidSynth", "%s", fluid_version_str());
#endif
    count = library_version_append(list, count, capacity, "Jansson", "%s", jansson_version_str());
    count = library_version_append(list, count, capacity, "protobuf-c", "%s", protobuf_c_version());
    count = library_version_append(list, count, capacity, "SentencePiece", "%s", SENTENCEPIECE_VERSION);
    unsigned int hash = XXH_versionNumber();
    return library_version_append(list, count, capacity, "xxHash", "%u.%u.%u", hash / 10000, hash / 100 % 100,
                                  hash % 100);
}
