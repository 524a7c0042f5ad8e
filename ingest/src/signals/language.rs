//! The language of a caption, by the frequencies of its letters ([`whatlang`]).

use whatlang::Lang;

/// The detector and its version, whose results other versions may not give.
pub(super) const DETECTOR: &str = "whatlang 0.18";

/// The most likely language of a caption.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Language {
    language: Lang,
    /// 0 to 1: how much more likely it is than the next one.
    pub(crate) confidence: f32,
}

impl Language {
    /// `None` if the caption has no letters of a known script.
    pub(crate) fn of(caption: &str) -> Option<Self> {
        let found = whatlang::detect(caption)?;
        Some(Self { language: found.lang(), confidence: found.confidence() as f32 })
    }

    /// The language with this code, as [`Language::code`] gives it.
    pub(crate) fn named(code: &str, confidence: f32) -> Option<Self> {
        Some(Self { language: Lang::from_code(code)?, confidence })
    }

    /// Three letters of ISO 639-3, such as `eng`.
    pub(crate) fn code(self) -> &'static str {
        self.language.code()
    }
}
