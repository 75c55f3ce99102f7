use std::ffi::{c_char, c_void};

pub(crate) const MAX_RANK: usize = 8;

/// `ShimDims` of shim/shim.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ShimDims {
    pub(crate) rank: i32,
    pub(crate) sizes: [i64; MAX_RANK],
}

pub(crate) type LogFn = unsafe extern "C" fn(user: *mut c_void, severity: i32, text: *const c_char);
pub(crate) type CreateFn = unsafe extern "C" fn(logger: *mut c_void, version: i32) -> *mut c_void;

type New = unsafe extern "C" fn(*mut c_void) -> *mut c_void;
type Delete = unsafe extern "C" fn(*mut c_void);
type Count = unsafe extern "C" fn(*mut c_void) -> i32;
type AskPort = unsafe extern "C" fn(*mut c_void, *const c_char) -> i32;
type PortShape = unsafe extern "C" fn(*mut c_void, *const c_char, *mut ShimDims);

/// `ShimTable` of shim/shim.h, field for field.
#[repr(C)]
pub(crate) struct Table {
    pub(crate) header_version: i32,
    pub(crate) logger_new: unsafe extern "C" fn(LogFn, *mut c_void) -> *mut c_void,
    pub(crate) logger_delete: Delete,
    pub(crate) runtime_new: unsafe extern "C" fn(CreateFn, *mut c_void) -> *mut c_void,
    pub(crate) runtime_delete: Delete,
    pub(crate) runtime_allow_host_code: Delete,
    pub(crate) engine_new: unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void,
    pub(crate) engine_delete: Delete,
    pub(crate) engine_ports: Count,
    pub(crate) engine_port_name: unsafe extern "C" fn(*mut c_void, i32) -> *const c_char,
    pub(crate) engine_port_mode: AskPort,
    pub(crate) engine_port_on_device: AskPort,
    pub(crate) engine_port_dtype: AskPort,
    pub(crate) engine_port_shape: PortShape,
    pub(crate) engine_profiles: Count,
    pub(crate) engine_profile_shape:
        unsafe extern "C" fn(*mut c_void, *const c_char, i32, i32, *mut ShimDims),
    pub(crate) engine_scratch_bytes: unsafe extern "C" fn(*mut c_void) -> i64,
    pub(crate) context_new: New,
    pub(crate) context_delete: Delete,
    pub(crate) context_scratch: unsafe extern "C" fn(*mut c_void, *mut c_void, i64),
    pub(crate) context_profile: unsafe extern "C" fn(*mut c_void, i32, *mut c_void) -> i32,
    pub(crate) context_input_shape: unsafe extern "C" fn(*mut c_void, *const c_char, *const ShimDims) -> i32,
    pub(crate) context_infer_shapes: Count,
    pub(crate) context_port_shape: PortShape,
    pub(crate) context_address: unsafe extern "C" fn(*mut c_void, *const c_char, *mut c_void) -> i32,
    pub(crate) context_enqueue: unsafe extern "C" fn(*mut c_void, *mut c_void) -> i32,
}

unsafe extern "C" {
    #[cfg(shim_10)]
    fn sightline_tensorrt_10() -> *const Table;
    #[cfg(shim_11)]
    fn sightline_tensorrt_11() -> *const Table;
}

/// The majors this build has a shim for, newest first.
pub(crate) fn tables() -> Vec<(u32, &'static Table)> {
    vec![
        #[cfg(shim_11)]
        // SAFETY: the shim returns the address of a constant of its own, laid out as `Table` mirrors it.
        (11, unsafe { &*sightline_tensorrt_11() }),
        #[cfg(shim_10)]
        // SAFETY: as above.
        (10, unsafe { &*sightline_tensorrt_10() }),
    ]
}
