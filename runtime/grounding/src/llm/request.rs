use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jpeg_encoder::{ColorType, Encoder};
use serde_json::{Value, json};

use super::LlmSettings;
use crate::{
    GroundingError, Kind,
    history::Turn,
    protocol::{Protocol, schema},
};

/// A picture to send: RGB, 8 bits a channel, row-major, no padding, already cropped and scaled.
#[derive(Clone)]
pub struct Image {
    width_px: u16,
    height_px: u16,
    rgb: Arc<[u8]>,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({}x{})", self.width_px, self.height_px)
    }
}

impl Image {
    /// Takes `width_px * height_px * 3` bytes; each side in 1..=65535.
    ///
    /// # Errors
    /// `Kind::Request` when the bytes do not match the size.
    pub fn new(width_px: u32, height_px: u32, rgb: Arc<[u8]>) -> Result<Self, GroundingError> {
        let refuse = |expected: &str, got: String| {
            Err(GroundingError::new(
                Kind::Request,
                format_args!("picture {width_px}x{height_px}"),
                expected,
                got,
            ))
        };
        let (Ok(width), Ok(height)) = (u16::try_from(width_px), u16::try_from(height_px)) else {
            return refuse("sides in 1..=65535", "a longer one".into());
        };
        let expected = usize::from(width) * usize::from(height) * 3;
        if expected == 0 || rgb.len() != expected {
            return refuse(&format!("{expected} bytes, at least 3"), rgb.len().to_string());
        }
        Ok(Self { width_px: width, height_px: height, rgb })
    }

    /// Width and height.
    pub fn size_px(&self) -> [u32; 2] {
        [self.width_px.into(), self.height_px.into()]
    }

    /// Its bytes.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// As a `data:` URL of a baseline JPEG.
    ///
    /// # Errors
    /// `Kind::Request` when the encoder refuses it.
    pub(crate) fn data_url(&self, quality: u8) -> Result<String, GroundingError> {
        let mut jpeg = Vec::with_capacity(self.rgb.len() / 8);
        Encoder::new(&mut jpeg, quality)
            .encode(&self.rgb, self.width_px, self.height_px, ColorType::Rgb)
            .map_err(|error| {
                GroundingError::new(Kind::Request, "picture", "one that JPEG can hold", error)
            })?;
        let mut url = String::from("data:image/jpeg;base64,");
        STANDARD.encode_string(&jpeg, &mut url);
        Ok(url)
    }
}

/// What is asked, whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// How to answer; may be empty.
    pub system: String,
    /// Earlier turns, oldest first, as words.
    pub turns: Vec<Turn>,
    /// Pictures, oldest first. They stand before the text.
    pub images: Vec<Image>,
    /// The question.
    pub text: String,
}

/// Tokens of a picture, roughly: patches of 28 pixels, as Qwen2-VL counts them.
fn image_tokens(image: &Image) -> u64 {
    image.size_px().map(|side| u64::from(side.div_ceil(28))).iter().product()
}

impl Request {
    /// A guess at the tokens it will take, both ways: four bytes a token.
    pub(crate) fn tokens(&self, settings: &LlmSettings) -> u64 {
        let turns: usize = self.turns.iter().map(|turn| turn.question.len() + turn.answer.len()).sum();
        let words = (self.system.len() + self.text.len() + turns) as u64 / 4;
        words + self.images.iter().map(image_tokens).sum::<u64>() + u64::from(settings.max_tokens)
    }

    /// The messages, which are the same for every try: pictures are encoded once.
    ///
    /// # Errors
    /// `Kind::Request` when there are more pictures than allowed or one cannot be encoded.
    pub(crate) fn messages(&self, settings: &LlmSettings) -> Result<Value, GroundingError> {
        if self.images.len() > settings.max_images {
            return Err(GroundingError::new(
                Kind::Request,
                "pictures",
                format_args!("at most {}", settings.max_images),
                self.images.len(),
            ));
        }
        let mut messages = Vec::new();
        if !self.system.is_empty() {
            messages.push(json!({"role": "system", "content": self.system}));
        }
        for turn in &self.turns {
            messages.push(json!({"role": "user", "content": turn.question}));
            messages.push(json!({"role": "assistant", "content": turn.answer}));
        }
        let mut content = Vec::new();
        for image in &self.images {
            let url = image.data_url(settings.image_quality)?;
            content.push(json!({"type": "image_url", "image_url": {"url": url}}));
        }
        content.push(json!({"type": "text", "text": self.text}));
        messages.push(json!({"role": "user", "content": content}));
        Ok(Value::Array(messages))
    }
}

/// The body of `POST chat/completions`; `extras` are the keys that not every server knows.
pub(crate) fn body(messages: &Value, settings: &LlmSettings, extras: bool) -> String {
    let mut body = json!({
        "model": settings.model,
        "messages": messages,
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "stream": true,
    });
    if extras {
        body["stream_options"] = json!({"include_usage": true});
        if settings.structured && settings.protocol == Protocol::Json {
            body["response_format"] = json!({
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": true, "schema": schema()},
            });
        }
    }
    body.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_match_their_size() {
        assert!(Image::new(2, 2, vec![0; 12].into()).is_ok());
        for (width, height, bytes) in [(2, 2, 11), (0, 2, 0), (70_000, 1, 210_000)] {
            let error = Image::new(width, height, vec![0; bytes].into()).expect_err("does not match");
            assert_eq!(error.kind(), Kind::Request, "{error}");
        }
    }

    /// What arrives is the picture that was sent, as another decoder sees it.
    #[test]
    fn pictures_survive_the_journey() {
        let (width, height) = (64_u32, 48_u32);
        let colour = |x: u32, y: u32| if x < 32 { [200, 40, 40] } else { [30, 60, (4 * y) as u8] };
        let rgb: Vec<u8> = (0..height).flat_map(|y| (0..width).flat_map(move |x| colour(x, y))).collect();
        let url = Image::new(width, height, rgb.clone().into()).unwrap().data_url(95).unwrap();
        let jpeg = STANDARD.decode(url.strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
        let mut decoded = mozjpeg::Decompress::new_mem(&jpeg).unwrap().rgb().unwrap();
        assert_eq!((decoded.width(), decoded.height()), (64, 48));
        let pixels: Vec<u8> = decoded.read_scanlines::<[u8; 3]>().unwrap().into_iter().flatten().collect();
        let off: u64 = pixels.iter().zip(&rgb).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(off / (rgb.len() as u64) < 4, "mean difference {}", off / rgb.len() as u64);
    }

    #[test]
    fn bodies_with_and_without_extras() {
        let image = Image::new(1, 1, vec![0; 3].into()).unwrap();
        let request = Request {
            system: "s".into(),
            turns: vec![Turn { question: "q".into(), answer: "a".into() }],
            images: vec![image.clone(), image],
            text: "t".into(),
        };
        let settings = LlmSettings { max_images: 2, ..LlmSettings::default() };
        let messages = request.messages(&settings).unwrap();
        let roles: Vec<_> =
            messages.as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        let content = messages[3]["content"].as_array().unwrap();
        assert_eq!((content.len(), content[2]["text"].as_str()), (3, Some("t")));
        let parsed = |extras| serde_json::from_str::<Value>(&body(&messages, &settings, extras)).unwrap();
        assert_eq!(parsed(true)["response_format"]["json_schema"]["strict"], true);
        assert!(parsed(false).get("response_format").is_none() && parsed(false)["stream"] == true);

        let few = LlmSettings { max_images: 1, ..settings };
        assert_eq!(request.messages(&few).unwrap_err().to_string(), "pictures: expected at most 1, got 2");
    }
}
