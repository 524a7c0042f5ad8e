//! Reads the part of Python's pickle format that weights files need, and, stricter, files of plain values ([`from_slice`]), without
//! executing anything.
//!
//! A pickle is a program for a small stack machine, and its instructions may import and call any Python function. This reader
//! implements only the instructions that build plain values, and has built-in replacements for the few functions and classes that a
//! state dict needs. Every other name is refused. The instructions are documented in CPython's `Lib/pickletools.py`.

mod lines;
mod machine;
mod plain;

use std::rc::Rc;

use machine::Machine;
pub(crate) use plain::from_slice;

/// A value. Containers are indices of nodes in [`Pickle`], so that shared and recursive values need no copies.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Values that nobody needs: bytes, random states, training arguments.
    Other,
    /// None.
    Nothing,
    Integer(i64),
    Float(f64),
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
    /// A dict, or the attributes of a TorchScript module.
    Dictionary(Vec<(Value, Value)>),
    /// A persistent id, which refers to another file: for PyTorch ("storage", kind, file, device, count).
    Stored(Value),
    /// The arguments of a call that builds a tensor.
    Tensor(Vec<Value>),
}

/// The content of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Value,
}

/// The effect of a call of a known name.
#[derive(Clone, Copy, PartialEq)]
enum Call {
    Dictionary,
    Tensor,
    /// Returns its first argument.
    First,
    Nothing,
}

/// All names that a pickle may use.
fn known(name: &str) -> Option<Call> {
    Some(match name {
        "collections.OrderedDict" => Call::Dictionary,
        "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => Call::Tensor,
        "torch._utils._rebuild_parameter" | "torch.Size" | "torch.nn.parameter.Parameter" => Call::First,
        // Names that occur in addition to weights: NumPy numbers, training arguments, kinds and devices.
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
        // Classes of TorchScript modules: only their names; the code is elsewhere in the file and is not read.
        _ if name.starts_with("__torch__.") => Call::Dictionary,
        // Kinds of storages and numbers (`torch.FloatStorage`, `torch.float32`), which are not called.
        _ => {
            let kind = name.strip_prefix("torch.")?;
            let plain = !kind.contains('.') && (kind.ends_with("Storage") || KINDS.contains(&kind));
            return (plain || kind == "storage.UntypedStorage").then_some(Call::Nothing);
        }
    })
}

const KINDS: [&str; 10] =
    ["float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"];

/// Reads a pickle. An error is the rest of a sentence about the file.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, String> {
    let mut machine = Machine::new(bytes, false);
    let root = machine.run()?;
    Ok(Pickle { nodes: machine.into_nodes(), root })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of `pickle.dumps({"a": -2, "b": [1, 300]}, 2)`.
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

    /// A list that is remembered again and again, by one byte each time.
    #[test]
    fn endless_pickles_are_refused() {
        let pickle = |count: usize| [b"\x80\x04]".to_vec(), vec![0x94; count], b".".to_vec()].concat();
        assert!(read(&pickle(1 << 20)).is_ok());
        let problem = read(&pickle(1 << 22)).unwrap_err();
        assert!(problem.contains("more than 4194304 instructions"), "{problem}");
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
