#include "host.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>

namespace dvmsr::trt {
namespace {

Host host_of(void *library) {
  const auto get_version = reinterpret_cast<int32_t (*)()>(dlsym(library, "getInferLibVersion"));
  return {library, get_version ? get_version() : 0};
}

int collect_name(dl_phdr_info *info, size_t, void *names) {
  const std::string path = info->dlpi_name;
  const std::string file = path.substr(path.rfind('/') + 1);
  if (file.rfind("libnvinfer", 0) == 0 || file.rfind("libtensorrt", 0) == 0) {
    static_cast<std::vector<std::string> *>(names)->push_back(path);
  }
  return 0;
}

std::string text_of(const Host &host) {
  return std::string(host.is_rtx() ? "TensorRT for RTX " : "TensorRT ") + std::to_string(host.major()) + "." +
         std::to_string(host.version % host.unit() / 100) + "." + std::to_string(host.version % 100);
}

}  // namespace

Host host_at(const void *address) {
  Dl_info info;
  void *library = nullptr;
  if (dladdr(address, &info)) library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  return host_of(library ? library : RTLD_DEFAULT);
}

std::vector<Host> loaded_hosts() {
  std::vector<std::string> names;
  dl_iterate_phdr(collect_name, &names);
  std::vector<Host> hosts = {host_of(RTLD_DEFAULT)};
  for (const std::string &name : names) {
    if (void *library = dlopen(name.c_str(), RTLD_LAZY | RTLD_NOLOAD)) hosts.push_back(host_of(library));
  }
  const auto unusable = [](const Host &host) { return !host.version || !dlsym(host.library, "getPluginRegistry"); };
  hosts.erase(std::remove_if(hosts.begin(), hosts.end(), unusable), hosts.end());
  return hosts;
}

std::string mismatch(const Host &host) {
  const std::string library = "libdvmsr_trt" + std::to_string(NV_TENSORRT_MAJOR);
  return "dvmsr: the plugins for TensorRT " + std::to_string(NV_TENSORRT_MAJOR) + " are not registered with " +
         text_of(host) + "; load " +
         (host.is_rtx() ? library + ".so through IPluginRegistry::loadLibrary"
                        : "the library that was built for it, libdvmsr_trt" + std::to_string(host.major()));
}

}  // namespace dvmsr::trt
