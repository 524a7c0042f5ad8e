//! Any bytes as the pickle of a PyTorch file, and as a safetensors file. The trainer's modules are compiled here by themselves,
//! because the trainer links libtorch.

#[allow(dead_code)]
#[path = "../../trainer/src/weights/pickle/mod.rs"]
mod pickle;
#[path = "../../trainer/src/weights/safetensors_file.rs"]
mod safetensors_file;
#[allow(dead_code)]
#[path = "../../trainer/src/weights/state_dict.rs"]
mod state_dict;

/// Runs the target `pickle`: every tensor is inside its storage, and reading plain values ends.
pub fn pickle(bytes: &[u8]) {
    if let Ok(plain) = pickle::from_slice::<serde_json::Value>(bytes) {
        assert!(!plain.to_string().is_empty());
    }
    let Ok(tensors) = pickle::read(bytes).and_then(|pickle| state_dict::tensors(&pickle)) else { return };
    assert!(!tensors.is_empty());
    for (name, place) in tensors {
        let numbers = i128::from(place.numbers);
        let sides: Vec<i128> = place.size.iter().map(|&side| side.into()).collect();
        assert!(sides.iter().all(|&side| side >= 0) && place.offset >= 0, "{name}: {place:?}");
        if sides.contains(&0) {
            continue;
        }
        let steps = sides.iter().zip(&place.stride).map(|(side, &stride)| (side - 1) * i128::from(stride));
        let last = i128::from(place.offset) + steps.sum::<i128>();
        let count = sides.iter().product::<i128>();
        assert!((0..numbers).contains(&last) && count <= numbers, "{name}: {place:?}");
    }
}

/// Runs the target `safetensors`: the tensors and the header are the whole file.
pub fn safetensors(bytes: &[u8]) {
    let Ok(views) = safetensors_file::views(bytes) else { return };
    let mut data = 0;
    for (name, view) in &views {
        let bits =
            view.shape().iter().map(|&side| side as u128).product::<u128>() * view.dtype().bitsize() as u128;
        assert_eq!(bits, 8 * view.data().len() as u128, "{name}");
        data += view.data().len();
    }
    let header = bytes.first_chunk().map(|length| u64::from_le_bytes(*length) as usize);
    assert_eq!(header.map(|header| 8 + header + data), Some(bytes.len()));
}
