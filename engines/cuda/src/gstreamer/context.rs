use gst::{glib, prelude::*};

use super::library::{Primary, expect_primary, library};
use crate::probe;

/// The type of the `GstContext` in which elements share a `GstCudaContext`.
pub const CUDA_CONTEXT: &str = "gst.cuda.context";

/// What elements of a pipeline share so that they can read each other's memory: the context of a GPU that models run in
/// (the primary one), as GStreamer knows it. Upstream decoders that are given it decode into memory that the model reads.
#[derive(Debug, Clone)]
pub struct SharedContext(gst::Context);

impl SharedContext {
    /// Wraps the primary context of a GPU. It is kept as long as anybody has the `GstCudaContext` in this.
    ///
    /// # Errors
    /// Without a driver, such a GPU or GStreamer's CUDA library: what was missing.
    pub fn new(ordinal: u32) -> Result<Self, String> {
        probe().map_err(|error| error.to_string())?;
        let library = library()?;
        let primary = Primary::retain(ordinal)?;
        // SAFETY: retained, and below bound to the object's life.
        let (context, object) = unsafe { library.wrapped(primary.handle(), primary.device())? };
        // SAFETY: the key is ours and nobody reads it; it goes with the object.
        unsafe { object.set_data("sightline-primary-context", primary) };
        Ok(Self(context))
    }

    /// What somebody else offers, if it is that GPU's primary context.
    ///
    /// # Errors
    /// What it is instead.
    pub fn adopt(ordinal: u32, context: &gst::Context) -> Result<Self, String> {
        let wrong = |got: String| format!("{CUDA_CONTEXT}: {got}");
        if context.context_type() != CUDA_CONTEXT {
            return Err(wrong(format!("expected a context of this type, got {}", context.context_type())));
        }
        let object = context.structure().get::<glib::Object>(CUDA_CONTEXT);
        let object = object.ok().filter(|object| object.type_().name() == "GstCudaContext");
        let object = object.ok_or_else(|| wrong("expected a GstCudaContext in it, got none".to_owned()))?;
        let (handle, of) = library()?.context(&object);
        if of != ordinal {
            return Err(wrong(format!("expected one on cuda:{ordinal}, got cuda:{of}")));
        }
        expect_primary(handle, ordinal).map_err(wrong)?;
        Ok(Self(context.clone()))
    }

    /// For queries and messages.
    pub fn context(&self) -> &gst::Context {
        &self.0
    }
}
