//! The CUDA context that elements of a pipeline share: a decoder that is given ours decodes into memory that the model reads.
//!
//! As GStreamer's own CUDA elements go about it: an element that needs a context asks its neighbours, then whoever listens to
//! the bus, and only then makes one and says so. Ours is the primary context of the GPU that the model is on, or one that
//! somebody else made of it; what is another is not taken, because engines run in that one alone.

#[cfg(feature = "cuda")]
pub(crate) use shared::Share;

/// The GPU that a provider is on.
#[cfg(feature = "cuda")]
fn ordinal(provider: &str) -> Option<u32> {
    use sightline_engine_registry::Provider;
    match provider.parse().ok()? {
        Provider::OnnxRuntimeCuda { ordinal }
        | Provider::OnnxRuntimeTensorRt { ordinal }
        | Provider::TensorRt { ordinal } => Some(ordinal),
        _ => None,
    }
}

#[cfg(feature = "cuda")]
mod shared {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use gst::prelude::*;
    use sightline_engine_cuda::gstreamer::{CUDA_CONTEXT, SharedContext};

    use super::{super::CAT, ordinal};

    /// The element's part in it.
    #[derive(Debug, Default)]
    pub(crate) struct Share(Mutex<Option<(u32, SharedContext)>>);

    impl Share {
        fn lock(&self) -> MutexGuard<'_, Option<(u32, SharedContext)>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Sees to it that there is one, where the model is on a GPU, and of that GPU. No lock is held while others are asked.
        pub(crate) fn ensure(&self, element: &gst::Element, provider: &str) {
            let ordinal = ordinal(provider);
            // Of the provider before.
            drop(self.lock().take_if(|(of, _)| Some(*of) != ordinal));
            let Some(ordinal) = ordinal else { return };
            let there = || self.lock().is_some();
            for pad in element.src_pads().into_iter().chain(element.sink_pads()) {
                if there() {
                    return;
                }
                let mut query = gst::query::Context::new(CUDA_CONTEXT);
                if pad.peer_query(query.query_mut())
                    && let Some(context) = query.context_owned()
                {
                    element.set_context(&context);
                }
            }
            if !there() {
                let need = gst::message::NeedContext::builder(CUDA_CONTEXT).src(element).build();
                let _ = element.post_message(need);
            }
            if there() {
                return;
            }
            match SharedContext::new(ordinal) {
                Ok(shared) => {
                    let context = shared.context().clone();
                    *self.lock() = Some((ordinal, shared));
                    let have = gst::message::HaveContext::builder(context).src(element).build();
                    let _ = element.post_message(have);
                }
                Err(reason) => {
                    gst::info!(CAT, obj = element, "no CUDA context to share: {reason}");
                }
            }
        }

        /// Somebody offers a context.
        pub(crate) fn offered(&self, element: &gst::Element, provider: &str, context: &gst::Context) {
            let Some(ordinal) = ordinal(provider).filter(|_| context.context_type() == CUDA_CONTEXT) else {
                return;
            };
            match SharedContext::adopt(ordinal, context) {
                Ok(shared) => {
                    // Elements keep the context they have.
                    let mut mine = self.lock();
                    if mine.as_ref().is_none_or(|(of, _)| *of != ordinal) {
                        *mine = Some((ordinal, shared));
                    }
                }
                Err(reason) => gst::info!(CAT, obj = element, "a context is not taken: {reason}"),
            }
        }

        /// Answers a neighbour, if we have one.
        pub(crate) fn answer(&self, query: &mut gst::query::Context) -> bool {
            let shared = self.lock().clone().filter(|_| query.context_type() == CUDA_CONTEXT);
            shared.inspect(|(_, shared)| query.set_context(shared.context())).is_some()
        }

        /// On the way to NULL.
        pub(crate) fn clear(&self) {
            self.lock().take();
        }
    }
}

/// Without CUDA there is nothing to share.
#[cfg(not(feature = "cuda"))]
#[derive(Debug, Default)]
pub(crate) struct Share;

#[cfg(not(feature = "cuda"))]
impl Share {
    pub(crate) fn ensure(&self, _element: &gst::Element, _provider: &str) {}

    pub(crate) fn offered(&self, _element: &gst::Element, _provider: &str, _context: &gst::Context) {}

    pub(crate) fn answer(&self, _query: &mut gst::query::Context) -> bool {
        false
    }

    pub(crate) fn clear(&self) {}
}
