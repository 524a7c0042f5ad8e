//! The stack machine that runs a pickle.

use std::collections::HashMap;

use super::{Call, Node, Value, known, lines};

const EMPTY: &str = "is damaged: it uses a value that does not exist";
const NO_NUMBER: &str = "is damaged: a number cannot be read";

/// The stack machine of pickle, without the instructions that import or call code.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<usize, Value>,
    nodes: Vec<Node>,
    /// Number of values that were copied from one container to another.
    copied: usize,
    /// Whether only plain values may occur: no names, calls, bytes or persistent ids.
    plain: bool,
}

/// Maximum of `copied`, far more than weights files need. It bounds the memory for a few bytes that copy a large container many
/// times.
const MAX_COPIED: usize = 1 << 22;

/// Maximum number of instructions; the pickles of published checkpoints have some ten thousand. An instruction of one byte may
/// keep a hundred bytes in memory.
const MAX_INSTRUCTIONS: usize = 1 << 22;
/// The same for plain values: 142,209 expressions with their words take some ten million.
const MAX_PLAIN_INSTRUCTIONS: usize = 1 << 25;

/// Instructions that import, call, or make other values than plain ones.
const NOT_PLAIN: [u8; 12] = [b'c', 0x93, b'R', 0x81, 0x92, b'b', b'Q', b'P', b'i', b'o', b'B', b'C'];

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8], plain: bool) -> Self {
        Self {
            plain,
            bytes,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            nodes: Vec::new(),
            copied: 0,
        }
    }

    pub(super) fn into_nodes(self) -> Vec<Node> {
        self.nodes
    }

    /// Runs the pickle and returns its final value.
    pub(super) fn run(&mut self) -> Result<Value, String> {
        let most = if self.plain { MAX_PLAIN_INSTRUCTIONS } else { MAX_INSTRUCTIONS };
        for _ in 0..most {
            let instruction = self.take(1)?[0];
            if self.plain && NOT_PLAIN.contains(&instruction) {
                return Err(self.not_plain(instruction));
            }
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
                b'N' => self.stack.push(Value::Nothing),
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
                    let bytes = self.take(8)?.iter().fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
                    self.stack.push(Value::Float(f64::from_bits(bytes)));
                }
                // The same as lines of text: protocol 0.
                b'I' | b'L' => {
                    let line = self.line()?;
                    let value = line.trim_end_matches('L').parse();
                    self.stack.push(Value::Integer(value.map_err(|_| NO_NUMBER)?));
                }
                b'F' => {
                    let line = self.line()?;
                    self.stack.push(Value::Float(line.parse().map_err(|_| NO_NUMBER)?));
                }
                b'S' => {
                    let line = self.raw_line()?;
                    self.stack.push(Value::Text(lines::string(line)?.into()));
                }
                b'V' => {
                    let line = self.raw_line()?;
                    self.stack.push(Value::Text(lines::unicode(line)?.into()));
                }
                // Strings with a length of 4, 1 and 8 bytes; strings of Python 2.
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
                b'p' => {
                    let place = self.place()?;
                    self.remember_at(place)?;
                }
                0x94 => {
                    let top = self.stack.last().cloned().ok_or(EMPTY)?;
                    self.memo.insert(self.memo.len(), top);
                }
                b'h' => self.recall(1)?,
                b'j' => self.recall(4)?,
                b'g' => {
                    let place = self.place()?;
                    self.recall_from(place)?;
                }
                // Names, and calls of them.
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.name(&module, &name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(name), Value::Text(module)) = (name, module) else {
                        return Err("is damaged: a name is not a string".to_owned());
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
                        "is damaged, or not a weights file: pickle instruction {instruction:#04x} is not supported"
                    ));
                }
            }
        }
        Err(format!("is damaged or malicious: its pickle has more than {most} instructions"))
    }

    /// Why an instruction is refused where only plain values may be; names what it would import.
    fn not_plain(&mut self, instruction: u8) -> String {
        let wanted = match (instruction, self.line(), self.line()) {
            (b'c' | b'i', Ok(module), Ok(name)) => format!("it imports {module}.{name}"),
            _ => format!("pickle instruction {instruction:#04x} makes something else"),
        };
        format!(
            "is refused: only dicts, lists, tuples, strings, numbers, true, false and None may be in it, but {wanted}. Such a pickle \
             may run any program"
        )
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let taken = self.at.checked_add(count).and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or("is damaged: the pickle is truncated")?;
        self.at += count;
        Ok(taken)
    }

    /// An unsigned little-endian number of at most 8 bytes.
    fn number(&mut self, bytes: usize) -> Result<usize, String> {
        Ok(self.take(bytes)?.iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte)) as usize)
    }

    /// Numbers of one and two bytes are unsigned, longer ones signed.
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
        let text = lines::decoded(self.take(length)?.to_vec());
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
        Ok(String::from_utf8_lossy(self.raw_line()?).into_owned())
    }

    fn raw_line(&mut self) -> Result<&'a [u8], String> {
        let length = self.bytes[self.at..].iter().position(|&byte| byte == b'\n');
        let line = self.take(length.ok_or("is damaged: a name has no end")? + 1)?;
        Ok(&line[..line.len() - 1])
    }

    /// A place of the memo, written as a line.
    fn place(&mut self) -> Result<usize, String> {
        Ok(self.line()?.parse().map_err(|_| NO_NUMBER)?)
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

    /// The container on top of the stack; `None` for values that are not kept.
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
        self.remember_at(place)
    }

    fn remember_at(&mut self, place: usize) -> Result<(), String> {
        let top = self.stack.last().cloned().ok_or(EMPTY)?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, bytes: usize) -> Result<(), String> {
        let place = self.number(bytes)?;
        self.recall_from(place)
    }

    fn recall_from(&mut self, place: usize) -> Result<(), String> {
        let value =
            self.memo.get(&place).cloned().ok_or("is damaged: it uses a value that was never stored")?;
        self.stack.push(value);
        Ok(())
    }

    fn count_copies(&mut self, count: usize) -> Result<(), String> {
        self.copied += count;
        if self.copied > MAX_COPIED {
            return Err("is damaged or malicious: it copies the same values too often".to_owned());
        }
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Result<(), String> {
        let name = format!("{module}.{name}");
        if known(&name).is_none() {
            return Err(format!(
                "is refused: it imports {name}, which weights do not need. Such a pickle may run any program. If you trust its \
                 author, load it with PyTorch and save its tensors as safetensors"
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
                _ => return Err("is damaged: a call has no arguments".to_owned()),
            },
            _ => return Err("is damaged: a call has no arguments".to_owned()),
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

    /// The entries of a list of pairs: Python 2 pickles an OrderedDict like that.
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

    /// Sets attributes: those of a TorchScript module are its parts; those of an OrderedDict (`_metadata`) are not weights.
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

fn pairs(values: Vec<Value>) -> Vec<(Value, Value)> {
    let mut values = values.into_iter();
    std::iter::from_fn(|| Some((values.next()?, values.next()?))).collect()
}
