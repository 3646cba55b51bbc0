# Run by `cmake -P` at every build: writes caravan_build_id.h, and touches it only when it changes.
#   -DSOURCE=native -DOUTPUT=.../caravan_build_id.h -DVERSION=1.2.3
# The id is a hash over names and contents of the native sources: equal ids mean equal arithmetic, wherever built.
file(GLOB_RECURSE sources RELATIVE ${SOURCE}
     ${SOURCE}/addon/*.* ${SOURCE}/cmake/*.cmake ${SOURCE}/engine/*.* ${SOURCE}/kernels/*.* ${SOURCE}/CMakeLists.txt)
list(SORT sources)
set(all "")
foreach(source ${sources})
  file(SHA256 ${SOURCE}/${source} hash)
  string(APPEND all "${source} ${hash}\n")
endforeach()
string(SHA256 id "${all}")
string(SUBSTRING ${id} 0 16 id)
set(text "#define CARAVAN_BUILD_ID \"${id}\"\n#define CARAVAN_VERSION \"${VERSION}\"\n")
set(before "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} before)
endif()
if(NOT before STREQUAL text)
  file(WRITE ${OUTPUT} "${text}")
endif()
