//! Pickles of plain values (dicts, lists, tuples, strings, numbers, true, false, None) as any type that serde can read, so that a
//! file may be JSON or a pickle with the same content.

use std::cell::Cell;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::machine::Machine;
use super::{Node, Pickle, Value};

/// Maximum number of values that are read, and never more than the file has bytes: a container may occur several times in a pickle that
/// stores it once.
const MAX_VALUES: usize = 1 << 23;
/// Maximum depth of containers in containers.
const MAX_DEPTH: usize = 32;

/// Reads a pickle of plain values, of protocols 0 to 2 or later ones. An error is the rest of a sentence about the file.
pub(crate) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut machine = Machine::new(bytes, true);
    let root = machine.run()?;
    let pickle = Pickle { nodes: machine.into_nodes(), root };
    let place = Place {
        pickle: &pickle,
        value: &pickle.root,
        depth: 0,
        left: &Cell::new(MAX_VALUES.min(bytes.len())),
    };
    T::deserialize(place).map_err(|e| format!("has other content than it should: {e}"))
}

type Problem = serde::de::value::Error;

/// A value of a pickle.
#[derive(Clone, Copy)]
struct Place<'a> {
    pickle: &'a Pickle,
    value: &'a Value,
    depth: usize,
    /// How many values may still be read.
    left: &'a Cell<usize>,
}

impl<'a> Place<'a> {
    fn inside(self, value: &'a Value) -> Self {
        Self { value, depth: self.depth + 1, ..self }
    }

    fn count(self) -> Result<(), Problem> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| Problem::custom("it has too many values"))?;
        self.left.set(left);
        if self.depth > MAX_DEPTH {
            return Err(Problem::custom("its containers are too deep"));
        }
        Ok(())
    }
}

impl<'de> Deserializer<'de> for Place<'_> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.count()?;
        match self.value {
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_str(text),
            Value::Nothing | Value::Other | Value::Name(_) => visitor.visit_unit(),
            Value::Node(node) => match self.pickle.nodes.get(*node) {
                Some(Node::List(values) | Node::Tuple(values)) => {
                    visitor.visit_seq(SeqDeserializer::new(values.iter().map(|value| self.inside(value))))
                }
                Some(Node::Dictionary(items)) => {
                    let items = items.iter().map(|(key, value)| (self.inside(key), self.inside(value)));
                    visitor.visit_map(MapDeserializer::new(items))
                }
                _ => Err(Problem::custom("it has something that is no plain value")),
            },
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.value {
            Value::Nothing => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier
    }
}

impl IntoDeserializer<'_, Problem> for Place<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Row {
        name: String,
        numbers: Vec<f64>,
        #[serde(default)]
        nothing: Option<i64>,
    }

    /// The bytes of `pickle.dumps([{"name": "a", "numbers": (1, 2.5), "other": True, "nothing": None}], P)` for P = 0 and 2, by Python 2.
    #[test]
    fn both_protocols_give_the_same() {
        let zero = b"(lp0\n(dp1\nS'nothing'\np2\nNsS'other'\np3\nI01\nsS'name'\np4\nS'a'\np5\nsS'numbers'\np6\n(I1\nF2.5\ntp7\nsa.";
        let two = b"\x80\x02]q\x00}q\x01(U\x07nothingq\x02NU\x05otherq\x03\x88U\x04nameq\x04U\x01aq\x05U\x07numbersq\x06K\x01G@\x04\x00\x00\x00\x00\x00\x00\x86q\x07ua.";
        let expected = [Row { name: "a".to_owned(), numbers: vec![1.0, 2.5], nothing: None }];
        for bytes in [&zero[..], two] {
            assert_eq!(from_slice::<Vec<Row>>(bytes).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_no_plain_value_is_refused() {
        for (bytes, what) in [
            (&b"cos\nsystem\n(S'true'\ntR."[..], "it imports os.system"),
            (b"\x80\x02ccollections\nOrderedDict\n)R.", "it imports collections.OrderedDict"),
            (b"(ios\nsystem\n.", "it imports os.system"),
            (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "0x93"),
            (b"\x80\x02C\x01a.", "0x43"),
            (b"(lp0\nI1\na", "truncated"),
            (b"I1x\n.", "number"),
        ] {
            let problem = from_slice::<Vec<Row>>(bytes).unwrap_err();
            assert!(problem.contains(what), "{problem}");
        }
        let problem = from_slice::<Vec<Row>>(b"(lp0\n(dp1\nS'numbers'\np2\n(lsa.").unwrap_err();
        assert!(problem.contains("missing field `name`"), "{problem}");
    }

    /// A list that contains itself, and one that doubles at each of 64 levels.
    #[test]
    fn endless_content_ends() {
        let long = [b"(lp0\ng0\na.".as_slice(), &[b' '; 100]].concat();
        assert!(from_slice::<serde_json::Value>(&long).unwrap_err().contains("too deep"));
        let mut bytes = b"(lp0\n0".to_vec();
        for level in 0..30 {
            bytes.extend(format!("(g{level}\ng{level}\nlp{}\n0", level + 1).bytes());
        }
        bytes.extend(b"g30\n.");
        assert!(from_slice::<serde_json::Value>(&bytes).unwrap_err().contains("too many values"));
    }
}
