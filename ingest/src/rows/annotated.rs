//! Annotations of images: the expected hash of the file, and boxes to blur. The readers of all formats treat these columns
//! as additional columns; here they are parsed.

use serde_json::Value;

use super::{Extra, Row, Rows, Wanted};
use crate::error::Error;
use crate::problem::Problem;

/// `[left, top, right, bottom]`, as fractions of the image's width or height.
pub type Region = [f64; 4];

/// Rows whose [`Row::hash`] (from the last additional column) and [`Row::boxes`] are filled in.
pub(super) struct AnnotatedRows {
    rows: Box<dyn Rows>,
    /// The additional columns without the hash.
    extra: Vec<Extra>,
    hashed: bool,
    /// Position of the column of boxes.
    boxes: Option<usize>,
}

impl AnnotatedRows {
    /// `rows` were opened with [`wanted_of_reader`].
    pub(super) fn new(rows: Box<dyn Rows>, wanted: &Wanted) -> Self {
        let mut extra = rows.extra().to_vec();
        let hashed = wanted.hash.is_some();
        if hashed {
            extra.pop();
        }
        let boxes =
            wanted.boxes.as_ref().and_then(|name| wanted.extra.iter().position(|extra| extra == name));
        Self { rows, extra, hashed, boxes }
    }
}

/// The columns that the reader of the format must find: the hash is one more additional column.
pub(super) fn wanted_of_reader(wanted: &Wanted) -> Wanted {
    let mut wanted = wanted.clone();
    wanted.extra.extend(wanted.hash.clone());
    wanted
}

impl Rows for AnnotatedRows {
    fn extra(&self) -> &[Extra] {
        &self.extra
    }

    fn captioned(&self) -> bool {
        self.rows.captioned()
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        let Some(mut row) = self.rows.next_row()? else { return Ok(None) };
        if self.hashed {
            row.hash = match row.extra.pop() {
                Some(Value::String(hash)) if !hash.trim().is_empty() => {
                    Some(hash.trim().to_ascii_lowercase())
                }
                _ => None,
            };
        }
        if let Some(value) = self.boxes.and_then(|index| row.extra.get(index)) {
            match regions(value) {
                Some(regions) => row.boxes = regions,
                None => row.problem = row.problem.or_else(|| Some(Problem::read(NOT_BOXES))),
            }
        }
        Ok(Some(row))
    }

    fn skip(&mut self, count: usize) -> Result<usize, Error> {
        self.rows.skip(count)
    }

    fn total(&self) -> Option<u64> {
        self.rows.total()
    }
}

/// The cause of failure: an image whose boxes cannot be read must not be stored without blurring.
const NOT_BOXES: &str = "boxes are not lists of left, top, right, bottom between 0 and 1";

/// Parses boxes: a list of lists of numbers, or the same as JSON text. Null and empty text mean no boxes.
pub(crate) fn regions(value: &Value) -> Option<Vec<Region>> {
    let parsed;
    let list = match value {
        Value::Null => return Some(Vec::new()),
        Value::String(text) if text.trim().is_empty() => return Some(Vec::new()),
        Value::String(text) => {
            parsed = loader::json::parse::<Value>(text.as_bytes()).ok()?;
            parsed.as_array()?
        }
        other => other.as_array()?,
    };
    let number = |value: &Value| value.as_f64().filter(|share| (0.0..=1.0).contains(share));
    let region = |value: &Value| {
        let sides: Vec<f64> = value.as_array()?.iter().map(number).collect::<Option<_>>()?;
        <Region>::try_from(sides).ok().filter(|[left, top, right, bottom]| left <= right && top <= bottom)
    };
    list.iter().map(region).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn boxes_are_lists_or_json_text() {
        let two = vec![[0.0, 0.1, 0.5, 1.0], [0.2, 0.2, 0.3, 0.3]];
        assert_eq!(regions(&json!([[0, 0.1, 0.5, 1], [0.2, 0.2, 0.3, 0.3]])), Some(two.clone()));
        assert_eq!(regions(&json!("[[0.0, 0.1, 0.5, 1.0], [0.2, 0.2, 0.3, 0.3]]")), Some(two));
        assert_eq!(regions(&json!(null)), Some(vec![]));
        assert_eq!(regions(&json!("")), Some(vec![]));
        assert_eq!(regions(&json!([])), Some(vec![]));
        for wrong in [
            json!("face"),
            json!([0, 0, 1, 1]),
            json!([[0, 0, 1]]),
            json!([[0, 0, 2, 1]]),
            json!([[1, 0, 0, 1]]),
        ] {
            assert_eq!(regions(&wrong), None, "{wrong}");
        }
    }
}
