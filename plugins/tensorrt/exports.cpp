// What TensorRT calls in a plugin library that it loads: IPluginRegistry::loadLibrary,
// `trtexec --dynamicPlugins`, and plans that carry their plugins.
#include "host.h"
#include "log.h"
#include "plugin.h"

#define DVMSR_EXPORT extern "C" __attribute__((visibility("default"), noinline))

DVMSR_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder *finder) {
  if (dvmsr::trt::host_at(__builtin_return_address(0)).matches()) dvmsr::trt::set_logger_finder(finder);
}

// No creators for a TensorRT of another major version. One without a version is a test that plays TensorRT.
DVMSR_EXPORT nvinfer1::IPluginCreatorInterface *const *getCreators(int32_t &count) {
  const dvmsr::trt::Host host = dvmsr::trt::host_at(__builtin_return_address(0));
  if (host.version && !host.is_rtx() && !host.matches()) {
    dvmsr::trt::log_error(dvmsr::trt::mismatch(host));
    count = 0;
    return nullptr;
  }
  const auto creators = dvmsr::trt::creators();
  count = creators.size();
  return creators.begin();
}
