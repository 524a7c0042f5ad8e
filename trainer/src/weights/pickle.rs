//! The part of Python's pickle that checkpoints of weights need, read without running anything.
//!
//! A pickle is a program for a small stack machine whose instructions may import and call any Python function. This
//! reader knows the instructions that build plain values; the few names a state dictionary is made with are known to
//! it as words, and every other name is refused. Instructions: CPython's `Lib/pickletools.py`.

use std::collections::HashMap;
use std::rc::Rc;

/// A value; containers are numbers of nodes in [`Pickle`], so that values shared or nested without end cost nothing.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// What no weight depends on: None, numbers with a fraction, bytes, random states, training arguments.
    Other,
    Integer(i64),
    Text(Rc<str>),
    /// The name of a class or function, `module.name`.
    Name(Rc<str>),
    Node(usize),
}

/// A container.
#[derive(Debug)]
pub(super) enum Node {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    /// A dictionary, or the attributes of a TorchScript module.
    Dictionary(Vec<(Value, Value)>),
    /// What the checkpoint keeps in a file of its own: for PyTorch ("storage", kind, file, device, numbers).
    Stored(Value),
    /// A call of a name that builds tensors, with its arguments.
    Tensor(Vec<Value>),
}

/// What a pickle says.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Value,
}

/// What a known name does when it is called.
#[derive(Clone, Copy, PartialEq)]
enum Call {
    Dictionary,
    Tensor,
    /// Gives its first argument back.
    First,
    Nothing,
}

/// Every name that a pickle may use.
fn known(name: &str) -> Option<Call> {
    Some(match name {
        "collections.OrderedDict" => Call::Dictionary,
        "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => Call::Tensor,
        "torch._utils._rebuild_parameter" | "torch.Size" | "torch.nn.parameter.Parameter" => Call::First,
        // What lies beside weights: numbers of NumPy, arguments of the training run, kinds and devices.
        "numpy.core.multiarray.scalar"
        | "numpy._core.multiarray.scalar"
        | "numpy.core.multiarray._reconstruct"
        | "numpy._core.multiarray._reconstruct"
        | "numpy.ndarray"
        | "numpy.dtype"
        | "_codecs.encode"
        | "argparse.Namespace"
        | "collections.defaultdict"
        | "__builtin__.dict"
        | "builtins.dict"
        | "torch.device"
        | "torch._tensor._rebuild_from_type_v2" => Call::Nothing,
        _ if name.starts_with("torch.jit._pickle.") => Call::First,
        // Classes of a TorchScript module: names alone, their code is elsewhere in the file and is not read.
        _ if name.starts_with("__torch__.") => Call::Dictionary,
        // Kinds of storage and of numbers (`torch.FloatStorage`, `torch.float32`), which are not called.
        _ => {
            let kind = name.strip_prefix("torch.")?;
            let plain = !kind.contains('.') && (kind.ends_with("Storage") || KINDS.contains(&kind));
            return (plain || kind == "storage.UntypedStorage").then_some(Call::Nothing);
        }
    })
}

const KINDS: [&str; 10] =
    ["float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"];

/// Reads a whole pickle. An error says what was refused, for a sentence about the file.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, String> {
    let mut machine = Machine {
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        nodes: Vec::new(),
        copied: 0,
    };
    let root = machine.run()?;
    Ok(Pickle { nodes: machine.nodes, root })
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<usize, Value>,
    nodes: Vec<Node>,
    /// Values copied from one container to another so far.
    copied: usize,
}

/// Far more than checkpoints copy; bounds what a few bytes that name a large container again and again can take.
const MOST_COPIED: usize = 1 << 22;

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value, String> {
        loop {
            let instruction = self.take(1)?[0];
            match instruction {
                // PROTO, FRAME
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.above_mark()?),
                b'2' => {
                    let top = self.stack.last().cloned().ok_or(EMPTY)?;
                    self.stack.push(top);
                }
                // Plain values.
                b'N' => self.stack.push(Value::Other),
                0x88 => self.stack.push(Value::Integer(1)),
                0x89 => self.stack.push(Value::Integer(0)),
                b'K' => self.integer(1)?,
                b'M' => self.integer(2)?,
                b'J' => self.integer(4)?,
                0x8a => {
                    let count = self.number(1)?;
                    self.integer(count)?;
                }
                b'G' => {
                    self.take(8)?;
                    self.stack.push(Value::Other);
                }
                // Texts with a length of 4, 1 and 8 bytes; Python 2's own texts.
                b'X' | b'T' => self.text(4)?,
                0x8c | b'U' => self.text(1)?,
                0x8d => self.text(8)?,
                b'B' => self.data(4)?,
                b'C' => self.data(1)?,
                0x8e | 0x96 => self.data(8)?,
                // Containers.
                b')' => self.node(Node::Tuple(Vec::new())),
                b']' | 0x8f => self.node(Node::List(Vec::new())),
                b'}' => self.node(Node::Dictionary(Vec::new())),
                0x85..=0x87 => {
                    let first = self.stack.len().checked_sub(usize::from(instruction - 0x84)).ok_or(EMPTY)?;
                    let values = self.stack.split_off(first);
                    self.node(Node::Tuple(values));
                }
                b't' => {
                    let values = self.above_mark()?;
                    self.node(Node::Tuple(values));
                }
                b'l' => {
                    let values = self.above_mark()?;
                    self.node(Node::List(values));
                }
                b'd' => {
                    let values = self.above_mark()?;
                    self.node(Node::Dictionary(pairs(values)));
                }
                b'a' => {
                    let value = self.pop()?;
                    self.extend(vec![value])?;
                }
                b'e' | 0x90 => {
                    let values = self.above_mark()?;
                    self.extend(values)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.insert(vec![(key, value)])?;
                }
                b'u' => {
                    let values = self.above_mark()?;
                    self.insert(pairs(values))?;
                }
                // The memo.
                b'q' => self.remember(1)?,
                b'r' => self.remember(4)?,
                0x94 => {
                    let top = self.stack.last().cloned().ok_or(EMPTY)?;
                    self.memo.insert(self.memo.len(), top);
                }
                b'h' => self.recall(1)?,
                b'j' => self.recall(4)?,
                // Names and what is made with them.
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.name(&module, &name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(name), Value::Text(module)) = (name, module) else {
                        return Err("damaged: a name that is no text".to_owned());
                    };
                    self.name(&module, &name)?;
                }
                // REDUCE, NEWOBJ
                b'R' | 0x81 => {
                    let (arguments, called) = (self.pop()?, self.pop()?);
                    self.call(&called, &arguments)?;
                }
                b'b' => {
                    let state = self.pop()?;
                    self.build(&state)?;
                }
                b'Q' => {
                    let place = self.pop()?;
                    self.node(Node::Stored(place));
                }
                _ => {
                    return Err(format!(
                        "damaged, or not weights: instruction {instruction:#04x} is not read here"
                    ));
                }
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let taken = self.at.checked_add(count).and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or("damaged: it ends in the middle")?;
        self.at += count;
        Ok(taken)
    }

    /// An unsigned number of at most 8 bytes, least first.
    fn number(&mut self, bytes: usize) -> Result<usize, String> {
        Ok(self.take(bytes)?.iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte)) as usize)
    }

    /// One byte and two are unsigned, four and longer ones signed.
    fn integer(&mut self, bytes: usize) -> Result<(), String> {
        let taken = self.take(bytes)?;
        if bytes > 8 {
            // Seeds of random generators.
            self.stack.push(Value::Other);
            return Ok(());
        }
        let negative = bytes > 2 && taken.last().is_some_and(|&byte| byte >= 0x80);
        let start = if negative { -1i64 } else { 0 };
        let value = taken.iter().rev().fold(start, |n, &byte| n << 8 | i64::from(byte));
        self.stack.push(Value::Integer(value));
        Ok(())
    }

    fn text(&mut self, length_bytes: usize) -> Result<(), String> {
        let length = self.number(length_bytes)?;
        let text = String::from_utf8_lossy(self.take(length)?);
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    fn data(&mut self, length_bytes: usize) -> Result<(), String> {
        let length = self.number(length_bytes)?;
        self.take(length)?;
        self.stack.push(Value::Other);
        Ok(())
    }

    fn line(&mut self) -> Result<String, String> {
        let length = self.bytes[self.at..].iter().position(|&byte| byte == b'\n');
        let line = self.take(length.ok_or("damaged: a name without an end")? + 1)?;
        Ok(String::from_utf8_lossy(&line[..line.len() - 1]).into_owned())
    }

    fn pop(&mut self) -> Result<Value, String> {
        if self.marks.last().is_some_and(|&mark| mark >= self.stack.len()) {
            return Err(EMPTY.to_owned());
        }
        self.stack.pop().ok_or_else(|| EMPTY.to_owned())
    }

    fn above_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or(EMPTY)?;
        Ok(self.stack.split_off(mark))
    }

    fn node(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(Value::Node(self.nodes.len() - 1));
    }

    /// The container on top of the stack; none for values that are not kept.
    fn top(&mut self) -> Result<Option<&mut Node>, String> {
        match self.stack.last() {
            Some(Value::Node(node)) => Ok(self.nodes.get_mut(*node)),
            Some(_) => Ok(None),
            None => Err(EMPTY.to_owned()),
        }
    }

    fn extend(&mut self, values: Vec<Value>) -> Result<(), String> {
        if let Some(Node::List(list)) = self.top()? {
            list.extend(values);
        }
        Ok(())
    }

    fn insert(&mut self, values: Vec<(Value, Value)>) -> Result<(), String> {
        if let Some(Node::Dictionary(dictionary)) = self.top()? {
            dictionary.extend(values);
        }
        Ok(())
    }

    fn remember(&mut self, bytes: usize) -> Result<(), String> {
        let place = self.number(bytes)?;
        let top = self.stack.last().cloned().ok_or(EMPTY)?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, bytes: usize) -> Result<(), String> {
        let place = self.number(bytes)?;
        let value = self.memo.get(&place).cloned().ok_or("damaged: a value that was never kept")?;
        self.stack.push(value);
        Ok(())
    }

    fn count_copies(&mut self, count: usize) -> Result<(), String> {
        self.copied += count;
        if self.copied > MOST_COPIED {
            return Err(
                "damaged, or made to fill memory: it copies the same values again and again".to_owned()
            );
        }
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Result<(), String> {
        let name = format!("{module}.{name}");
        if known(&name).is_none() {
            return Err(format!(
                "refused: it asks for {name}, which no weights need; a pickle that does may run any program, so load it \
                 only where you trust its maker, and save its tensors as safetensors"
            ));
        }
        self.stack.push(Value::Name(name.into()));
        Ok(())
    }

    fn call(&mut self, called: &Value, arguments: &Value) -> Result<(), String> {
        let Value::Name(name) = called else {
            self.stack.push(Value::Other);
            return Ok(());
        };
        let arguments = match arguments {
            Value::Node(node) => match &self.nodes[*node] {
                Node::Tuple(values) => values.clone(),
                _ => return Err("damaged: a call without arguments".to_owned()),
            },
            _ => return Err("damaged: a call without arguments".to_owned()),
        };
        self.count_copies(arguments.len())?;
        match known(name) {
            Some(Call::Dictionary) => {
                let items = arguments.first().map_or_else(Vec::new, |items| self.items(items));
                self.count_copies(items.len())?;
                self.node(Node::Dictionary(items));
            }
            Some(Call::Tensor) => self.node(Node::Tensor(arguments)),
            Some(Call::First) => self.stack.push(arguments.first().cloned().unwrap_or(Value::Other)),
            Some(Call::Nothing) | None => self.stack.push(Value::Other),
        }
        Ok(())
    }

    /// The pairs of a list of pairs, as Python 2 pickles an OrderedDict.
    fn items(&self, list: &Value) -> Vec<(Value, Value)> {
        let inside = |value: &Value| match value {
            Value::Node(node) => match &self.nodes[*node] {
                Node::List(values) | Node::Tuple(values) => values.as_slice(),
                _ => &[],
            },
            _ => &[],
        };
        let pair = |value: &Value| match inside(value) {
            [key, value] => Some((key.clone(), value.clone())),
            _ => None,
        };
        inside(list).iter().filter_map(pair).collect()
    }

    /// Attributes: those of a TorchScript module are its parts, those of an OrderedDict (`_metadata`) no weights.
    fn build(&mut self, state: &Value) -> Result<(), String> {
        let Value::Node(state) = state else { return Ok(()) };
        let Some(Node::Dictionary(attributes)) = self.nodes.get(*state) else { return Ok(()) };
        let attributes = attributes.clone();
        self.count_copies(attributes.len())?;
        match self.top()? {
            Some(Node::Dictionary(items)) if items.is_empty() => items.extend(attributes),
            _ => {}
        }
        Ok(())
    }
}

const EMPTY: &str = "damaged: a value is used that is not there";

fn pairs(values: Vec<Value>) -> Vec<(Value, Value)> {
    let mut values = values.into_iter();
    std::iter::from_fn(|| Some((values.next()?, values.next()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `pickletools.dis` shows for `pickle.dumps({"a": -2, "b": [1, 300]}, 2)`.
    #[test]
    fn plain_values_are_read() {
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01J\xfe\xff\xff\xffX\x01\x00\x00\x00bq\x02]q\x03(K\x01M,\x01eu.";
        let pickle = read(bytes).unwrap();
        let Value::Node(root) = pickle.root else { panic!("{:?}", pickle.root) };
        let Node::Dictionary(items) = &pickle.nodes[root] else { panic!("{:?}", pickle.nodes) };
        assert!(matches!((&items[0].0, &items[0].1), (Value::Text(a), Value::Integer(-2)) if &**a == "a"));
        let Value::Node(list) = items[1].1 else { panic!("{items:?}") };
        assert!(
            matches!(&pickle.nodes[list], Node::List(v) if matches!(v[..], [Value::Integer(1), Value::Integer(300)]))
        );
    }

    #[test]
    fn names_outside_the_list_are_refused_by_name() {
        for (bytes, name) in [
            (&b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."[..], "os.system"),
            (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "builtins.eval"),
            (b"\x80\x02ctorch.utils\nStorage\n.", "torch.utils.Storage"),
        ] {
            assert!(read(bytes).unwrap_err().contains(name));
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(X\x01\x00\x00\x00aq\x02K\x01X\x01\x00\x00\x00b\x8a\x02\xff\x00u}q\x03X\x01\x00\x00\x00vK\x01sb.";
        assert!(read(whole).is_ok());
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "cut to {length}");
        }
        for place in 0..whole.len() {
            for byte in 0..=255 {
                let mut changed = whole.to_vec();
                changed[place] = byte;
                let _ = read(&changed);
            }
        }
    }
}
