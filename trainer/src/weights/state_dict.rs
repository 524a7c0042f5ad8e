//! Finds the tensors of a state dict in a pickle: their names, and where their numbers are. Needs no libtorch, so that the fuzz
//! targets can compile it by itself.

use std::rc::Rc;

use super::pickle::{Node, Pickle, Value};

/// Keys under which training programs store the state dict, in order of preference.
const STATE: [&str; 7] = ["state_dict", "model_state_dict", "model", "denoiser", "teacher", "module", "ema"];
/// Prefixes that wrapper modules add to every key.
const WRAPPERS: [&str; 4] = ["module.", "_orig_mod.", "model.", "backbone."];
/// Maximum nesting of dictionaries.
const MAX_DEPTH: usize = 64;
/// Maximum number of sides of a tensor, PyTorch's own; as in `safetensors_file.rs`. Without it a few bytes could repeat one long list for every tensor.
const MAX_SIDES: usize = 64;
/// Maximum size of all names together in bytes, far more than weights files need. It bounds the memory for a long key that a few
/// bytes repeat for every tensor.
const MAX_NAMES: usize = 64 << 20;

const TOO_DEEP: &str = "has dictionaries that are nested too deeply";
const TOO_MANY: &str = "has too many entries in dictionaries that others share";

/// A tensor: a view of a storage.
#[derive(Debug)]
pub(super) struct Place {
    /// The storage's file in the archive.
    pub(super) file: Rc<str>,
    /// The storage's kind of numbers, `torch.FloatStorage`.
    pub(super) kind: Rc<str>,
    /// How many numbers the storage has.
    pub(super) numbers: i64,
    pub(super) offset: i64,
    pub(super) size: Vec<i64>,
    pub(super) stride: Vec<i64>,
}

/// The tensors of the state dict with their dotted keys, at least one. An error is the rest of a sentence about the file.
pub(super) fn tensors(pickle: &Pickle) -> Result<Vec<(String, Place)>, String> {
    let mut found = Found { pickle, tensors: Vec::new(), visited: 0, names: 0 };
    found.collect(&state(pickle), String::new(), 0)?;
    let place = |(name, arguments): (String, &[Value])| match Place::of(pickle, arguments) {
        Ok(place) => Ok((name, place)),
        Err(why) => Err(format!("tensor {name}: {why}")),
    };
    let tensors: Vec<_> = found.tensors.into_iter().map(place).collect::<Result<_, _>>()?;
    if tensors.is_empty() {
        return Err("contains no named tensors".to_owned());
    }
    Ok(unwrapped(tensors))
}

/// Removes the prefixes that all keys have.
fn unwrapped(mut tensors: Vec<(String, Place)>) -> Vec<(String, Place)> {
    let mut prefix = 0;
    let on_all =
        |wrapper: &str, from: usize| tensors.iter().all(|(name, _)| name[from..].starts_with(wrapper));
    while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| on_all(wrapper, prefix)) {
        prefix += wrapper.len();
    }
    for (name, _) in &mut tensors {
        name.drain(..prefix);
    }
    tensors
}

/// The state dict in the saved object.
fn state(pickle: &Pickle) -> Value {
    let mut value = pickle.root.clone();
    for _ in 0..MAX_DEPTH {
        let Some(Node::Dictionary(items)) = node(pickle, &value) else { break };
        let is_tensor = |value: &Value| matches!(node(pickle, value), Some(Node::Tensor(_)));
        if items.iter().any(|(_, value)| is_tensor(value)) {
            break;
        }
        let inside = STATE.iter().find_map(|wanted| {
            items.iter().find_map(|(key, value)| match (key, node(pickle, value)) {
                (Value::Text(key), Some(Node::Dictionary(_))) if &**key == *wanted => Some(value.clone()),
                _ => None,
            })
        });
        match inside {
            Some(inside) => value = inside,
            None => break,
        }
    }
    value
}

fn node<'a>(pickle: &'a Pickle, value: &Value) -> Option<&'a Node> {
    match value {
        Value::Node(node) => pickle.nodes.get(*node),
        _ => None,
    }
}

/// Collects tensors with their dotted keys.
struct Found<'a> {
    pickle: &'a Pickle,
    tensors: Vec<(String, &'a [Value])>,
    /// Entries of dictionaries so far; one that is shared counts every time.
    visited: usize,
    /// Bytes of the names so far.
    names: usize,
}

impl Found<'_> {
    fn collect(&mut self, value: &Value, name: String, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(TOO_DEEP.to_owned());
        }
        self.names += name.len();
        if self.names > MAX_NAMES {
            return Err(format!("is damaged or malicious: its names have more than {MAX_NAMES} bytes"));
        }
        match node(self.pickle, value) {
            Some(Node::Tensor(place)) => self.tensors.push((name, place)),
            Some(Node::Dictionary(items)) => {
                for (key, value) in items {
                    self.visited += 1;
                    if self.visited > self.pickle.nodes.len() + (1 << 20) {
                        return Err(TOO_MANY.to_owned());
                    }
                    // Entries with numbers as keys are optimizer states.
                    let Value::Text(key) = key else { continue };
                    let name = if name.is_empty() { key.to_string() } else { format!("{name}.{key}") };
                    self.collect(value, name, depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Place {
    /// From the arguments of `_rebuild_tensor` (storage, offset, size, stride, ..), of which the storage is a persistent id
    /// ("storage", kind, file, device, count).
    fn of(pickle: &Pickle, arguments: &[Value]) -> Result<Self, String> {
        let [storage, Value::Integer(offset), size, stride, ..] = arguments else {
            return Err("has an unknown description".to_owned());
        };
        let Some(Node::Stored(storage)) = node(pickle, storage) else {
            return Err("has no storage".to_owned());
        };
        let Some(Node::Tuple(parts)) = node(pickle, storage) else {
            return Err("has a storage without a description".to_owned());
        };
        let [Value::Text(what), Value::Name(kind), Value::Text(file), _, Value::Integer(numbers)] =
            &parts[..]
        else {
            return Err("has a storage with an unknown description".to_owned());
        };
        if &**what != "storage" || file.contains('/') {
            return Err(format!("has an unknown kind of storage, {what} {file}"));
        }
        let place = Self {
            file: Rc::clone(file),
            kind: Rc::clone(kind),
            numbers: *numbers,
            offset: *offset,
            size: integers(pickle, size)?,
            stride: integers(pickle, stride)?,
        };
        place.check()?;
        Ok(place)
    }

    /// Whether the tensor is inside its storage.
    fn check(&self) -> Result<(), String> {
        let Self { size, stride, offset, numbers, .. } = self;
        if size.len() != stride.len() || size.iter().chain(stride).any(|&n| n < 0) || *offset < 0 {
            return Err(format!("has size {size:?}, stride {stride:?} and offset {offset}"));
        }
        let outside = || {
            format!(
                "size {size:?}, stride {stride:?}, offset {offset} exceed its storage of {numbers} numbers"
            )
        };
        let count = size.iter().try_fold(1i64, |n, &side| n.checked_mul(side)).ok_or_else(outside)?;
        let last = size.iter().zip(stride).try_fold(*offset, |last, (&side, &stride)| {
            last.checked_add((side - 1).max(0).checked_mul(stride)?)
        });
        // More numbers than the storage means repeated rows, which weights do not have.
        if count > *numbers || (count > 0 && last.is_none_or(|last| last >= *numbers)) {
            return Err(outside());
        }
        Ok(())
    }
}

fn integers(pickle: &Pickle, value: &Value) -> Result<Vec<i64>, String> {
    let Some(Node::Tuple(values) | Node::List(values)) = node(pickle, value) else {
        return Err("has no size".to_owned());
    };
    if values.len() > MAX_SIDES {
        return Err(format!("has {} sides; the limit is {MAX_SIDES}", values.len()));
    }
    values
        .iter()
        .map(|value| match value {
            Value::Integer(n) => Ok(*n),
            _ => Err("has a size that is not a number".to_owned()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::pickle::read;
    use super::*;

    /// A dictionary of tensors, as bytes: `count` times the same one under keys of `key` bytes, with `sides` sides.
    fn pickled(count: usize, key: usize, sides: usize) -> Vec<u8> {
        let text = |text: &[u8]| [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text].concat();
        let mut bytes = [b"\x80\x02(".as_slice(), &b"K\x01".repeat(sides), b"tq\x00"].concat();
        bytes.extend(b"ctorch._utils\n_rebuild_tensor\n((");
        bytes.extend(
            [&text(b"storage"), b"ctorch\nFloatStorage\n".as_slice(), &text(b"0"), &text(b"cpu")].concat(),
        );
        bytes.extend(b"K\x04tQK\x03h\x00h\x00tRq\x01");
        bytes.extend(
            [&text(&vec![b'k'; key]), b"q\x02}(".as_slice(), &b"h\x02h\x01".repeat(count), b"u."].concat(),
        );
        bytes
    }

    #[test]
    fn tensors_are_found() {
        let found = tensors(&read(&pickled(2, 3, 1)).unwrap()).unwrap();
        let [(name, place), _] = &found[..] else { panic!("{found:?}") };
        assert_eq!((name.as_str(), &*place.kind, &*place.file), ("kkk", "torch.FloatStorage", "0"));
        assert_eq!(
            (place.numbers, place.offset, &place.size[..], &place.stride[..]),
            (4, 3, &[1][..], &[1][..])
        );
    }

    /// Some MB of a file would take terabytes.
    #[test]
    fn what_is_shared_may_not_be_copied_without_end() {
        let problem = |bytes: &[u8]| tensors(&read(bytes).unwrap()).unwrap_err();
        assert!(problem(&pickled(100_000, 1 << 20, 1)).contains("its names have more than"));
        assert!(problem(&pickled(100_000, 1, 100_000)).contains("has 100000 sides"));
    }

    #[test]
    fn wrappers_are_removed_from_the_names() {
        let names = |names: &[&str]| -> Vec<String> {
            let found = tensors(&read(&pickled(names.len(), 1, 1)).unwrap()).unwrap();
            let renamed = names.iter().zip(found).map(|(name, (_, place))| ((*name).to_owned(), place));
            unwrapped(renamed.collect()).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(&["module.model.a", "module.model.b"]), ["a", "b"]);
        assert_eq!(names(&["module.a", "b"]), ["module.a", "b"]);
        // Copied once, not once per wrapper.
        assert_eq!(names(&[&"module.".repeat(1 << 20)]), [""]);
    }
}
