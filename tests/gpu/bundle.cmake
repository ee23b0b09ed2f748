# Makes the installed programs a folder that runs on another machine: Open MPI as Debian lays it out, and every library
# that it or the programs need. The C library and the driver are the target's; CUDA's libraries are opened at run time.
# Set before: LIBRARY_ARCHITECTURE ("x86_64-linux-gnu"), SOURCE_FOLDER.
set(root "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}")
set(system "/usr/lib/${LIBRARY_ARCHITECTURE}")
set(libraries "${root}/lib/${LIBRARY_ARCHITECTURE}")
file(GLOB programs "${root}/bin/*")

foreach(name orterun orted)
  find_program(${name} ${name} REQUIRED)
  file(COPY_FILE "${${name}}" "${root}/bin/${name}")
  list(APPEND programs "${root}/bin/${name}")
endforeach()
file(CREATE_LINK orterun "${root}/bin/mpirun" SYMBOLIC)
file(INSTALL "${system}/openmpi/lib/openmpi3" DESTINATION "${libraries}/openmpi/lib")
file(INSTALL "${system}/pmix2/lib/pmix" DESTINATION "${libraries}/pmix2/lib")
file(INSTALL "${system}/pmix2/share" DESTINATION "${libraries}/pmix2")
file(INSTALL /usr/share/openmpi DESTINATION "${root}/share")
file(INSTALL /etc/openmpi/openmpi-mca-params.conf DESTINATION "${root}/etc")

file(GLOB plugins "${system}/openmpi/lib/openmpi3/*.so" "${system}/pmix2/lib/pmix/*.so")
file(GET_RUNTIME_DEPENDENCIES EXECUTABLES ${programs} MODULES ${plugins}
  DIRECTORIES "${system}" "${system}/openmpi/lib" "${system}/pmix2/lib"
  RESOLVED_DEPENDENCIES_VAR found UNRESOLVED_DEPENDENCIES_VAR missing CONFLICTING_DEPENDENCIES_PREFIX conflict
  PRE_EXCLUDE_REGEXES "^(ld-linux.*|libc|libm|libmvec|libdl|libpthread|librt|libresolv|libutil|libanl|libcuda)\\.so")
if(missing)
  message(FATAL_ERROR "bundle: not found: ${missing}")
endif()
# One found at two places is the same file by two names of its folder.
foreach(name ${conflict_FILENAMES})
  list(GET conflict_${name} 0 first)
  list(APPEND found "${first}")
endforeach()
file(MAKE_DIRECTORY "${libraries}")
foreach(library ${found})
  get_filename_component(name "${library}" NAME)
  file(REAL_PATH "${library}" file)
  file(COPY_FILE "${file}" "${libraries}/${name}" ONLY_IF_DIFFERENT)
endforeach()
execute_process(COMMAND git log -1 "--format=commit: %h %s" WORKING_DIRECTORY "${SOURCE_FOLDER}"
  OUTPUT_FILE "${root}/share/musicrl/commit" ERROR_QUIET)
# The oldest C library that all of it runs with, for run.sh.
file(GLOB_RECURSE binaries "${root}/bin/*" "${libraries}/*.so*")
execute_process(COMMAND readelf -W --version-info ${binaries} OUTPUT_VARIABLE versions COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "GLIBC_[0-9.]+" versions "${versions}")
list(REMOVE_DUPLICATES versions)
list(SORT versions COMPARE NATURAL ORDER DESCENDING)
list(GET versions 0 newest)
string(REPLACE "GLIBC_" "" newest "${newest}")
file(WRITE "${root}/share/musicrl/glibc" "${newest}\n")
