#include "kernels/library_version.h"

#include <mpi.h>
#include <string.h>

int comm_library_versions(library_version *list, int capacity) {
    // "Open MPI v4.1.4, package: ..., ident: ...": what stands before the first comma says enough. The call
    // is allowed before MPI_Init.
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(text, &length);
    text[strcspn(text, ",\n")] = '\0';
    return library_version_append(list, 0, capacity, "MPI", "%.64s", text);
}
