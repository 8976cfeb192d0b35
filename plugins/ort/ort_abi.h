// The part of the ONNX Runtime C interface that the custom operators use, and nothing else.
//
// The onnxruntime wheels ship no headers, but their C interface only ever grows at the end, so a
// function keeps its place in the table for good; these definitions hold for every release since
// DVMSR_ORT_API. tests/plugins/test_ort_abi.py proves each place, signature and constant against
// the real headers. It looks for them in the folder DVMSR_ORT_INCLUDE (`include/` of a release
// archive from github.com/microsoft/onnxruntime/releases), else takes them from the npm package
// com.github.asus4.onnxruntime.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(_WIN32)
#define DVMSR_ORT_CALL __stdcall
#else
#define DVMSR_ORT_CALL
#endif

// The interface version asked for: that of onnxruntime 1.20, the oldest release supported.
constexpr uint32_t DVMSR_ORT_API = 20;

struct OrtStatus;  // NULL: success
struct OrtValue;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtTensorTypeAndShapeInfo;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtShapeInferContext;
struct OrtOpAttr;
struct OrtMemoryInfo;
struct OrtAllocator;
struct OrtApi;
struct OrtCustomOp;

enum OrtErrorCode { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2, ORT_NOT_IMPLEMENTED = 9 };

enum ONNXTensorElementDataType {
  ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED = 0,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 = 10
};

enum OrtCustomOpInputOutputCharacteristic { INPUT_OUTPUT_REQUIRED = 0, INPUT_OUTPUT_OPTIONAL = 1 };

enum OrtMemType { OrtMemTypeDefault = 0 };

enum OrtOpAttrType { ORT_OP_ATTR_INT = 1, ORT_OP_ATTR_INTS = 2, ORT_OP_ATTR_FLOAT = 3 };

enum OrtAllocatorType { OrtArenaAllocator = 1 };

struct OrtApiBase {
  const OrtApi *(DVMSR_ORT_CALL *GetApi)(uint32_t version);  // NULL: the runtime is older
  const char *(DVMSR_ORT_CALL *GetVersionString)(void);
};

// The function table; `skipped_<first place>` are functions not used here.
struct OrtApi {
  OrtStatus *(DVMSR_ORT_CALL *CreateStatus)(OrtErrorCode code, const char *message);
  void *skipped_1[25];
  OrtStatus *(DVMSR_ORT_CALL *CreateCustomOpDomain)(const char *name, OrtCustomOpDomain **out);
  OrtStatus *(DVMSR_ORT_CALL *CustomOpDomain_Add)(OrtCustomOpDomain *domain, const OrtCustomOp *op);
  OrtStatus *(DVMSR_ORT_CALL *AddCustomOpDomain)(OrtSessionOptions *options, OrtCustomOpDomain *domain);
  void *skipped_29[22];
  OrtStatus *(DVMSR_ORT_CALL *GetTensorMutableData)(OrtValue *value, void **out);
  void *skipped_52[5];
  OrtStatus *(DVMSR_ORT_CALL *CreateTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo **out);
  OrtStatus *(DVMSR_ORT_CALL *SetTensorElementType)(OrtTensorTypeAndShapeInfo *info,
                                                    ONNXTensorElementDataType type);
  OrtStatus *(DVMSR_ORT_CALL *SetDimensions)(OrtTensorTypeAndShapeInfo *info, const int64_t *dimensions,
                                             size_t count);
  OrtStatus *(DVMSR_ORT_CALL *GetTensorElementType)(const OrtTensorTypeAndShapeInfo *info,
                                                    ONNXTensorElementDataType *out);
  OrtStatus *(DVMSR_ORT_CALL *GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *info, size_t *out);
  OrtStatus *(DVMSR_ORT_CALL *GetDimensions)(const OrtTensorTypeAndShapeInfo *info, int64_t *out,
                                             size_t count);
  OrtStatus *(DVMSR_ORT_CALL *GetSymbolicDimensions)(const OrtTensorTypeAndShapeInfo *info,
                                                     const char **out, size_t count);
  void *skipped_64[1];
  OrtStatus *(DVMSR_ORT_CALL *GetTensorTypeAndShape)(const OrtValue *value,
                                                     OrtTensorTypeAndShapeInfo **out);
  void *skipped_66[2];
  OrtStatus *(DVMSR_ORT_CALL *CreateMemoryInfo)(const char *name, OrtAllocatorType type, int id,
                                                OrtMemType memory, OrtMemoryInfo **out);
  void *skipped_69[6];
  OrtStatus *(DVMSR_ORT_CALL *AllocatorAlloc)(OrtAllocator *allocator, size_t size, void **out);
  OrtStatus *(DVMSR_ORT_CALL *AllocatorFree)(OrtAllocator *allocator, void *pointer);
  void *skipped_77[8];
  OrtStatus *(DVMSR_ORT_CALL *KernelInfoGetAttribute_float)(const OrtKernelInfo *info, const char *name,
                                                            float *out);
  OrtStatus *(DVMSR_ORT_CALL *KernelInfoGetAttribute_int64)(const OrtKernelInfo *info, const char *name,
                                                            int64_t *out);
  void *skipped_87[1];
  OrtStatus *(DVMSR_ORT_CALL *KernelContext_GetInputCount)(const OrtKernelContext *context, size_t *out);
  void *skipped_89[1];
  OrtStatus *(DVMSR_ORT_CALL *KernelContext_GetInput)(const OrtKernelContext *context, size_t index,
                                                      const OrtValue **out);
  OrtStatus *(DVMSR_ORT_CALL *KernelContext_GetOutput)(OrtKernelContext *context, size_t index,
                                                       const int64_t *shape, size_t rank,
                                                       OrtValue **out);
  void *skipped_92[1];
  void(DVMSR_ORT_CALL *ReleaseStatus)(OrtStatus *status);
  void(DVMSR_ORT_CALL *ReleaseMemoryInfo)(OrtMemoryInfo *info);
  void *skipped_95[4];
  void(DVMSR_ORT_CALL *ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *info);
  void *skipped_100[32];
  void(DVMSR_ORT_CALL *ReleaseAllocator)(OrtAllocator *allocator);
  void *skipped_133[30];
  OrtStatus *(DVMSR_ORT_CALL *KernelInfoGetAttributeArray_int64)(const OrtKernelInfo *info,
                                                                 const char *name, int64_t *out,
                                                                 size_t *count);
  void *skipped_164[29];
  OrtStatus *(DVMSR_ORT_CALL *KernelContext_GetGPUComputeStream)(const OrtKernelContext *context,
                                                                 void **out);
  void *skipped_194[36];
  OrtStatus *(DVMSR_ORT_CALL *KernelInfo_GetInputCount)(const OrtKernelInfo *info, size_t *out);
  void *skipped_231[1];
  OrtStatus *(DVMSR_ORT_CALL *KernelInfo_GetInputName)(const OrtKernelInfo *info, size_t index, char *out,
                                                       size_t *size);
  void *skipped_233[5];
  OrtStatus *(DVMSR_ORT_CALL *GetSessionConfigEntry)(const OrtSessionOptions *options,
                                                     const char *key, char *out, size_t *size);
  void *skipped_239[10];
  OrtStatus *(DVMSR_ORT_CALL *KernelInfoGetConstantInput_tensor)(const OrtKernelInfo *info, size_t index,
                                                                 int *is_constant, const OrtValue **out);
  void *skipped_250[3];
  OrtStatus *(DVMSR_ORT_CALL *KernelContext_GetAllocator)(const OrtKernelContext *context,
                                                          const OrtMemoryInfo *info,
                                                          OrtAllocator **out);
  void *skipped_254[13];
  OrtStatus *(DVMSR_ORT_CALL *ShapeInferContext_GetInputCount)(const OrtShapeInferContext *context,
                                                               size_t *out);
  OrtStatus *(DVMSR_ORT_CALL *ShapeInferContext_GetInputTypeShape)(
      const OrtShapeInferContext *context, size_t index, OrtTensorTypeAndShapeInfo **out);
  OrtStatus *(DVMSR_ORT_CALL *ShapeInferContext_GetAttribute)(const OrtShapeInferContext *context,
                                                              const char *name, const OrtOpAttr **out);
  OrtStatus *(DVMSR_ORT_CALL *ShapeInferContext_SetOutputTypeShape)(
      const OrtShapeInferContext *context, size_t index, const OrtTensorTypeAndShapeInfo *info);
  OrtStatus *(DVMSR_ORT_CALL *SetSymbolicDimensions)(OrtTensorTypeAndShapeInfo *info,
                                                     const char *names[], size_t count);
  OrtStatus *(DVMSR_ORT_CALL *ReadOpAttr)(const OrtOpAttr *attribute, OrtOpAttrType type, void *data,
                                          size_t size, size_t *needed);
  void *skipped_273[1];
  OrtStatus *(DVMSR_ORT_CALL *KernelContext_ParallelFor)(const OrtKernelContext *context,
                                                         void (*task)(void *data, size_t index),
                                                         size_t count, size_t batches, void *data);
};

// What one operator is to the runtime; members left NULL take the runtime's default.
struct OrtCustomOp {
  uint32_t version;
  void *skipped_create_kernel;
  const char *(DVMSR_ORT_CALL *GetName)(const OrtCustomOp *op);
  const char *(DVMSR_ORT_CALL *GetExecutionProviderType)(const OrtCustomOp *op);  // NULL: CPU
  ONNXTensorElementDataType(DVMSR_ORT_CALL *GetInputType)(const OrtCustomOp *op, size_t index);
  size_t(DVMSR_ORT_CALL *GetInputTypeCount)(const OrtCustomOp *op);
  ONNXTensorElementDataType(DVMSR_ORT_CALL *GetOutputType)(const OrtCustomOp *op, size_t index);
  size_t(DVMSR_ORT_CALL *GetOutputTypeCount)(const OrtCustomOp *op);
  void *skipped_kernel_compute;
  void(DVMSR_ORT_CALL *KernelDestroy)(void *kernel);
  OrtCustomOpInputOutputCharacteristic(DVMSR_ORT_CALL *GetInputCharacteristic)(const OrtCustomOp *op,
                                                                               size_t index);
  OrtCustomOpInputOutputCharacteristic(DVMSR_ORT_CALL *GetOutputCharacteristic)(
      const OrtCustomOp *op, size_t index);
  OrtMemType(DVMSR_ORT_CALL *GetInputMemoryType)(const OrtCustomOp *op, size_t index);
  void *skipped_variadic[4];
  OrtStatus *(DVMSR_ORT_CALL *CreateKernelV2)(const OrtCustomOp *op, const OrtApi *api,
                                              const OrtKernelInfo *info, void **kernel);
  OrtStatus *(DVMSR_ORT_CALL *KernelComputeV2)(void *kernel, OrtKernelContext *context);
  OrtStatus *(DVMSR_ORT_CALL *InferOutputShapeFn)(const OrtCustomOp *op, OrtShapeInferContext *context);
  void *skipped_versions_and_reuse[6];
};
