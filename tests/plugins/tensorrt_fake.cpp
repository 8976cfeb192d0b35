// A TensorRT of the version FAKE_VERSION with a plugin registry, for the tests of how the plugin libraries find
// and refuse one. Only a registry of the version compiled for may be touched.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

#include "NvInferRuntime.h"

namespace {

using namespace nvinfer1;

// Prints what is registered.
class Registry : public IPluginRegistry {
 public:
  bool registerCreator(IPluginCreatorInterface &creator, const char *name_space) noexcept override {
    std::printf("%s::%s\n", name_space, static_cast<IPluginCreatorV3One &>(creator).getPluginName());
    return true;
  }
  void setErrorRecorder(IErrorRecorder *) noexcept override {}
  IErrorRecorder *getErrorRecorder() const noexcept override { return nullptr; }
  bool isParentSearchEnabled() const override { return false; }
  void setParentSearchEnabled(bool) override {}
  PluginLibraryHandle loadLibrary(const char *) noexcept override { return nullptr; }
  void deregisterLibrary(PluginLibraryHandle) noexcept override {}
  IPluginCreatorInterface *const *getAllCreators(int32_t *) const noexcept override { return nullptr; }
  IPluginCreatorInterface *getCreator(const char *, const char *, const char *) noexcept override { return nullptr; }
  bool deregisterCreator(const IPluginCreatorInterface &) noexcept override { return false; }
  IPluginResource *acquirePluginResource(const char *, IPluginResource *) noexcept override { return nullptr; }
  int32_t releasePluginResource(const char *) noexcept override { return 0; }
  IPluginCreatorInterface *const *getAllCreatorsRecursive(int32_t *) noexcept override { return nullptr; }
#if NV_TENSORRT_MAJOR < 11
  bool registerCreator(IPluginCreator &, const char *) noexcept override { return false; }
  IPluginCreator *const *getPluginCreatorList(int32_t *) const noexcept override { return nullptr; }
  IPluginCreator *getPluginCreator(const char *, const char *, const char *) noexcept override { return nullptr; }
  bool deregisterCreator(const IPluginCreator &) noexcept override { return false; }
#endif
};

Registry registry;

}  // namespace

extern "C" int32_t getInferLibVersion() noexcept { return FAKE_VERSION; }

extern "C" IPluginRegistry *getPluginRegistry() noexcept {
  if (FAKE_VERSION / 10000 != NV_TENSORRT_MAJOR) std::abort();
  return &registry;
}

// As IPluginRegistry::loadLibrary does: how many creators the library has. The finder is not to be called.
extern "C" int32_t load_library(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return -1;
  reinterpret_cast<void (*)(ILoggerFinder *)>(dlsym(library, "setLoggerFinder"))(nullptr);
  int32_t count = -1;
  reinterpret_cast<IPluginCreatorInterface *const *(*)(int32_t &)>(dlsym(library, "getCreators"))(count);
  return count;
}
