//! Asking for TensorRT where it is not.
#![allow(missing_docs)]

use sightline_engine_api::Kind;
use sightline_engine_registry::{LoadOptions, Provider, load};

#[test]
fn asked_for_and_not_there_is_an_error_and_never_the_cpu() {
    let options = LoadOptions { provider: Provider::TensorRt { ordinal: 0 }, ..LoadOptions::default() };
    for model in ["nano", "fake"] {
        let error = load(model, &options).expect_err(model);
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        assert!(error.to_string().starts_with(&format!("model \"{model}\"")), "{error}");
    }
    if !cfg!(feature = "tensorrt") {
        let text = load("nano", &options).expect_err("not built").to_string();
        assert!(text.contains("--features tensorrt"), "{text}");
    }
}
