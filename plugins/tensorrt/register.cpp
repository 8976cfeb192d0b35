// Registers the plugins when the library is loaded: `trtexec --staticPlugins`, `polygraphy --plugins`,
// Triton, DeepStream.
#include <dlfcn.h>

#include <set>
#include <string>

#include "host.h"
#include "log.h"
#include "plugin.h"

namespace dvmsr::trt {
namespace {

// Every TensorRT of this major version in the process, which is loaded if there is none at all.
class Registrar {
 public:
  Registrar() {
    std::vector<Host> hosts = loaded_hosts();
    if (hosts.empty()) {
      const std::string name = "libnvinfer.so." + std::to_string(NV_TENSORRT_MAJOR);
      if (!dlopen(name.c_str(), RTLD_LAZY)) {
        log_error("dvmsr: " + name + " was not found, so its plugins are not registered; put the folder of TensorRT " +
                  std::to_string(NV_TENSORRT_MAJOR) + " on LD_LIBRARY_PATH");
      }
      hosts = loaded_hosts();
    }
    // Several handles find one registry: that of a library, of those that link it, and the global one. A TensorRT of
    // another version is not to be called; its function stands for its registry.
    std::set<const void *> seen;
    for (const Host &host : hosts) {
      void *function = dlsym(host.library, "getPluginRegistry");
      if (!host.matches()) {
        if (seen.insert(function).second) log_error(mismatch(host));
        continue;
      }
      auto *registry = reinterpret_cast<nvinfer1::IPluginRegistry *(*)()>(function)();
      if (!seen.insert(registry).second) continue;
      for (auto *creator : creators()) registry->registerCreator(*creator, plugin_namespace);
    }
  }
};

Registrar registrar;

}  // namespace
}  // namespace dvmsr::trt
