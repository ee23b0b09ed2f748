# Sourced by run.sh: what the programs of the bundle in $bundle need. Only they may see it: other programs of the machine
# have libraries of their own.
# shellcheck shell=bash disable=SC2154,SC2034
bundle_libraries=$bundle/lib/x86_64-linux-gnu
pmix=$bundle_libraries/pmix2
bundle_libraries=$bundle_libraries:$bundle_libraries/openmpi/lib:$pmix/lib
bundle_environment=(
    PATH="$bundle/bin:$PATH"
    LD_LIBRARY_PATH="$bundle_libraries"
    OPAL_PREFIX="$bundle"
    PMIX_INSTALL_PREFIX="$pmix"
    PMIX_MCA_mca_base_component_path="$pmix/lib/pmix"
    OMPI_ALLOW_RUN_AS_ROOT=1
    OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    OMPI_MCA_rmaps_base_oversubscribe=1
    OMPI_MCA_hwloc_base_binding_policy=none
    OMPI_MCA_pml=ob1 # this machine alone: shared memory, no fabric, no ssh
    OMPI_MCA_btl='self,vader'
    OMPI_MCA_plm=isolated
)
