/* A stand-in for libcuda.so.1, libnvbufsurface.so and libnvcuvid.so.1: "device memory" is the process's own, copies are
 * copies, and every call that tests look at is written down. It proves the order of calls and what becomes of failures,
 * and nothing about NVIDIA's own libraries. The structures are declared in this file's words, not in Rust's, so that the
 * two have to agree. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK 0
#define INVALID_VALUE 1
#define INVALID_CONTEXT 201
#define NOT_FOUND 500
#define FAILED 999

/* What tests ask for. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char calls[1 << 14];
static char failing[64];

void mock_fail(const char *name) {
  pthread_mutex_lock(&lock);
  snprintf(failing, sizeof failing, "%s", name);
  pthread_mutex_unlock(&lock);
}

/* Hands out what was called since the last time. */
void mock_calls(char *into, size_t size) {
  pthread_mutex_lock(&lock);
  snprintf(into, size, "%s", calls);
  calls[0] = 0;
  pthread_mutex_unlock(&lock);
}

/* Notes a call; whether it is to fail. */
static int note(const char *name) {
  pthread_mutex_lock(&lock);
  size_t used = strlen(calls);
  snprintf(calls + used, sizeof calls - used, "%s%s", used ? " " : "", name);
  int fails = strcmp(failing, name) == 0;
  pthread_mutex_unlock(&lock);
  return fails;
}

/* The driver: one device, contexts that have to be current. */
static int the_context;
static _Thread_local int pushed;

int cuInit(unsigned flags) { (void)flags; return note("cuInit") ? FAILED : OK; }
int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal == 0 ? OK : INVALID_VALUE; }
int cuDeviceGetName(char *name, int size, int device) { (void)device; snprintf(name, size, "mock"); return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : 512; /* compute capability 9.0; texture alignment */
  return OK;
}
int cuGetErrorName(int error, const char **name) {
  *name = error == FAILED ? "CUDA_ERROR_UNKNOWN" : error == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT" : NULL;
  return *name ? OK : INVALID_VALUE;
}
int cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }
int cuDevicePrimaryCtxRetain(void **context, int device) {
  (void)device;
  *context = &the_context;
  return note("cuDevicePrimaryCtxRetain") ? FAILED : OK;
}
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return note("cuDevicePrimaryCtxRelease") ? FAILED : OK; }
int cuCtxPushCurrent_v2(void *context) { pushed++; return context == &the_context ? OK : INVALID_CONTEXT; }
int cuCtxPopCurrent_v2(void **context) {
  if (context) *context = &the_context;
  return pushed-- > 0 ? OK : INVALID_CONTEXT;
}
int cuCtxCreate_v2(void **context, unsigned flags, int device) {
  (void)flags, (void)device;
  *context = &the_context;
  pushed++;
  return OK; /* a new context is current */
}
int cuCtxDestroy_v2(void *context) { (void)context; return OK; }
int cuMemAlloc_v2(uint64_t *address, size_t bytes) { *address = (uintptr_t)calloc(1, bytes); return OK; }
int cuMemAllocPitch_v2(uint64_t *address, size_t *pitch, size_t width, size_t height, unsigned element) {
  (void)element;
  *pitch = (width + 511) / 512 * 512;
  return cuMemAlloc_v2(address, *pitch * height);
}
int cuMemFree_v2(uint64_t address) { free((void *)(uintptr_t)address); return OK; }
int cuMemAllocHost_v2(void **address, size_t bytes) { *address = calloc(1, bytes); return OK; }
int cuMemFreeHost(void *address) { free(address); return OK; }
int cuStreamCreate(void **stream, unsigned flags) { (void)flags; *stream = &the_context; return OK; }
int cuStreamDestroy(void *stream) { (void)stream; return OK; }
int cuStreamDestroy_v2(void *stream) { (void)stream; return OK; }
int cuStreamSynchronize(void *stream) { (void)stream; return OK; }

struct array { char *data; size_t pitch; };
struct copy {
  size_t from_x, from_y;
  unsigned from_type;
  const void *from_host;
  uint64_t from_device;
  struct array *from_array;
  size_t from_pitch, to_x, to_y;
  unsigned to_type;
  void *to_host;
  uint64_t to_device;
  struct array *to_array;
  size_t to_pitch, width, height;
};
int cuMemcpy2D_v2(const struct copy *copy) {
  if (note("cuMemcpy2D")) return FAILED;
  if (!pushed) return INVALID_CONTEXT;
  const char *from = copy->from_type == 1 ? copy->from_host : (const char *)(uintptr_t)copy->from_device;
  char *to = copy->to_type == 1 ? copy->to_host : (char *)(uintptr_t)copy->to_device;
  size_t pitch = copy->from_pitch;
  if (copy->from_type == 3) from = copy->from_array->data, pitch = copy->from_array->pitch;
  if (copy->from_type < 1 || copy->from_type > 4 || copy->to_type < 1 || copy->to_type > 2) return INVALID_VALUE;
  for (size_t row = 0; row < copy->height; row++)
    memcpy(to + row * copy->to_pitch, from + row * pitch, copy->width);
  return OK;
}
int cuMemcpy2DAsync_v2(const struct copy *copy, void *stream) { (void)stream; return cuMemcpy2D_v2(copy); }

/* What a loader looks up and these tests never call. */
#define REFUSED(name) int name(void) { return FAILED; }
REFUSED(cuCtxEnablePeerAccess)
REFUSED(cuCtxDisablePeerAccess)
REFUSED(cuDeviceCanAccessPeer)
REFUSED(cuModuleLoadData)
REFUSED(cuModuleUnload)
REFUSED(cuModuleGetFunction)
REFUSED(cuTexObjectCreate)
REFUSED(cuTexObjectDestroy)
REFUSED(cuLaunchKernel)
REFUSED(cuGraphicsMapResources)
REFUSED(cuGraphicsUnmapResources)
REFUSED(cuGraphicsResourceSetMapFlags)
REFUSED(cuGraphicsResourceSetMapFlags_v2)
REFUSED(cuGraphicsSubResourceGetMappedArray)
REFUSED(cuGraphicsResourceGetMappedPointer)
REFUSED(cuGraphicsResourceGetMappedPointer_v2)
REFUSED(cuGraphicsGLRegisterImage)
REFUSED(cuGraphicsGLRegisterBuffer)
REFUSED(cuGLGetDevices)
REFUSED(cuGLGetDevices_v2)
REFUSED(cuEventCreate)
REFUSED(cuEventDestroy)
REFUSED(cuEventDestroy_v2)
REFUSED(cuEventRecord)
REFUSED(cuEventSynchronize)
REFUSED(cuEventQuery)
REFUSED(cuIpcGetEventHandle)
REFUSED(cuIpcOpenEventHandle)
REFUSED(cuIpcGetMemHandle)
REFUSED(cuIpcOpenMemHandle)
REFUSED(cuIpcOpenMemHandle_v2)
REFUSED(cuIpcCloseMemHandle)

/* The decoder library, which says of every codec that it has none. */
REFUSED(cuvidCtxLockCreate)
REFUSED(cuvidCtxLockDestroy)
REFUSED(cuvidCtxLock)
REFUSED(cuvidCtxUnlock)
REFUSED(cuvidCreateDecoder)
REFUSED(cuvidDestroyDecoder)
REFUSED(cuvidDecodePicture)
REFUSED(cuvidCreateVideoParser)
REFUSED(cuvidParseVideoData)
REFUSED(cuvidDestroyVideoParser)
REFUSED(cuvidMapVideoFrame)
REFUSED(cuvidMapVideoFrame64)
REFUSED(cuvidUnmapVideoFrame)
REFUSED(cuvidUnmapVideoFrame64)
REFUSED(cuvidGetDecoderCaps)

/* Surfaces. */
#define PLANES 4
struct planes { uint32_t count, width[PLANES], height[PLANES], pitch[PLANES], offset[PLANES], size[PLANES], pixel[PLANES]; void *reserved[4 * PLANES]; };
struct mapped { void *address[PLANES]; void *egl_image; };
struct params {
  uint32_t width, height, pitch, color_format, layout;
  uint64_t descriptor;
  uint32_t data_size;
  void *data;
  struct planes planes;
  struct mapped mapped;
};
struct surface {
  uint32_t gpu, batch, filled;
  _Bool contiguous;
  uint32_t memory;
  struct params *list;
};

/* An "EGLImage" is the picture itself. */
int NvBufSurfaceMapEglImage(struct surface *surface, int index) {
  if (note("NvBufSurfaceMapEglImage")) return -1;
  surface->list[index].mapped.egl_image = &surface->list[index];
  return 0;
}
int NvBufSurfaceUnMapEglImage(struct surface *surface, int index) {
  surface->list[index].mapped.egl_image = NULL;
  return note("NvBufSurfaceUnMapEglImage") ? -1 : 0;
}

struct resource { struct params *image; struct array arrays[3]; };
int cuGraphicsEGLRegisterImage(struct resource **resource, struct params *image, unsigned flags) {
  if (note("cuGraphicsEGLRegisterImage")) return FAILED;
  if (!pushed) return INVALID_CONTEXT;
  *resource = calloc(1, sizeof **resource);
  (*resource)->image = image;
  return flags == 0 ? OK : INVALID_VALUE;
}
int cuGraphicsUnregisterResource(struct resource *resource) {
  if (!pushed) return INVALID_CONTEXT;
  free(resource);
  return note("cuGraphicsUnregisterResource") ? FAILED : OK;
}
struct frame { void *planes[3]; uint32_t width, height, depth, pitch, count, channels, type, color, format; };
int cuGraphicsResourceGetMappedEglFrame(struct frame *frame, struct resource *resource, unsigned index, unsigned level) {
  if (note("cuGraphicsResourceGetMappedEglFrame")) return FAILED;
  if (!pushed || index || level) return INVALID_CONTEXT;
  struct params *image = resource->image;
  memset(frame, 0, sizeof *frame);
  frame->width = image->width, frame->height = image->height;
  frame->pitch = image->pitch, frame->count = image->planes.count;
  frame->type = image->layout == 0; /* pitched; else an array */
  for (uint32_t plane = 0; plane < image->planes.count && plane < 3; plane++) {
    struct array *array = &resource->arrays[plane];
    *array = (struct array){(char *)image->data + image->planes.offset[plane], image->planes.pitch[plane]};
    frame->planes[plane] = frame->type ? (void *)array->data : (void *)array;
  }
  return OK;
}
