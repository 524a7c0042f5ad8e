//! TensorBoard's event files: TFRecords of `Event` messages (tensorflow/core/util/event.proto), scalars only.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Result, writing};

/// An event file, to which events are appended.
#[derive(Debug)]
pub(super) struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    /// A new file in `folder`, which is created, for a run that has taken `step` steps. TensorBoard joins all event files of
    /// a folder.
    pub(super) fn create(folder: &Path, step: u64) -> Result<Self> {
        fs::create_dir_all(folder).map_err(writing(folder))?;
        let (seconds, process) = (now() as u64, std::process::id());
        let path = folder.join(format!("events.out.tfevents.{seconds}.{process}"));
        let file = File::create(&path).map_err(writing(&path))?;
        let mut events = Self { file, path };
        let mut event = Vec::new();
        put_double(&mut event, 1, now());
        put_bytes(&mut event, 3, b"brain.Event:2");
        events.append(&event)?;
        events.append(&start(step, now()))?;
        Ok(events)
    }

    /// Scalars of a step.
    pub(super) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (name, value) in values {
            let mut scalar = Vec::new();
            put_bytes(&mut scalar, 1, name.as_bytes());
            put_float(&mut scalar, 2, *value as f32);
            put_bytes(&mut summary, 1, &scalar);
        }
        let mut event = Vec::new();
        put_double(&mut event, 1, now());
        put_number(&mut event, 2, step);
        put_bytes(&mut event, 5, &summary);
        self.append(&event)
    }

    fn append(&mut self, event: &[u8]) -> Result<()> {
        let record = record(event);
        self.file.write_all(&record).map_err(writing(&self.path))
    }
}

/// The start of a session after `step` steps: TensorBoard drops what earlier files say about later steps.
fn start(step: u64, time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    put_double(&mut event, 1, time);
    put_number(&mut event, 2, step + 1);
    // SessionLog { status: START }
    let mut session = Vec::new();
    put_number(&mut session, 1, 1);
    put_bytes(&mut event, 7, &session);
    event
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A TFRecord: length, checksum of the length, content, checksum of the content.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked(&length).to_le_bytes());
    out.extend(bytes);
    out.extend(masked(bytes).to_le_bytes());
    out
}

/// TFRecord's masked checksum: CRC-32C, rotated and offset, because the CRC of data that contains CRCs is problematic.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), reflected, bit by bit: fast enough for a few hundred bytes per log line.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

// Protocol buffer fields: field number and wire type, then the value.

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3);
    put_varint(out, value);
}

fn put_double(out: &mut Vec<u8>, field: u64, value: f64) {
    put_varint(out, field << 3 | 1);
    out.extend(value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, value.len() as u64);
    out.extend(value);
}

fn put_float(out: &mut Vec<u8>, field: u64, value: f32) {
    put_varint(out, field << 3 | 5);
    out.extend(value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value in CRC catalogues, and the one of RFC 3720 for 32 zero bytes.
    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    /// The bytes of a scalar as TensorFlow's own protocol buffers write it (tensorboard 2.20): `Event(wall_time=1.5, step=300,
    /// summary=Summary(value=[Summary.Value(tag="loss", simple_value=0.25)]))`.
    #[test]
    fn an_event_has_tensorflows_bytes() {
        let (mut scalar, mut summary, mut event) = (Vec::new(), Vec::new(), Vec::new());
        put_bytes(&mut scalar, 1, b"loss");
        put_float(&mut scalar, 2, 0.25);
        put_bytes(&mut summary, 1, &scalar);
        put_double(&mut event, 1, 1.5);
        put_number(&mut event, 2, 300);
        put_bytes(&mut event, 5, &summary);
        let expected = "09000000000000f83f10ac022a0d0a0b0a046c6f7373150000803e";
        assert_eq!(hexadecimal(&event), expected);
    }

    fn hexadecimal(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The same of `Event(wall_time=1.5, step=6, session_log=SessionLog(status=SessionLog.START))`. With it, tensorboard 2.20 shows
    /// the scalars of an earlier file up to step 5 and those of this one from there on; without it, both.
    #[test]
    fn a_resumed_run_replaces_the_steps_that_come_again() {
        assert_eq!(hexadecimal(&start(5, 1.5)), "09000000000000f83f10063a020801");
    }
}
