//! The tables of a dataset of scenes: classes.txt, captions.parquet, those of objects and expressions and, last, scenes.json.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow_array::{ArrayRef, BooleanArray, Float32Array, RecordBatch, StringArray, UInt8Array, UInt32Array};
use disk::files;
use serde_json::json;

use super::classes::CLASSES;
use super::colours::COLOURS;
use super::draw::Scene;
use super::roles::Role;
use super::{Arguments, Rendered, SCENES, names, stem};

/// How many pixels of the dataset each class covers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pixels {
    /// Pixels of each class.
    counts: [u64; CLASSES.len()],
    /// Number of images that contain each class.
    images: [u64; CLASSES.len()],
}

impl Pixels {
    /// Those of one mask.
    pub(super) fn of(mask: &[u8]) -> Self {
        let mut pixels = Self::default();
        for &class in mask {
            pixels.counts[usize::from(class)] += 1;
        }
        pixels.images = pixels.counts.map(|count| u64::from(count > 0));
        pixels
    }

    pub(super) fn add(&mut self, other: &Self) {
        for class in 0..CLASSES.len() {
            self.counts[class] += other.counts[class];
            self.images[class] += other.images[class];
        }
    }

    /// Fraction of all pixels, 0..1, per class.
    fn shares(&self) -> Vec<f64> {
        let total = self.counts.iter().sum::<u64>().max(1) as f64;
        self.counts.iter().map(|&count| count as f64 / total).collect()
    }
}

/// Expected mean IoU of labels drawn uniformly at random, for classes that cover the fractions `shares` of many pixels
/// (their sum is 1). With K classes, a class with fraction f is predicted correctly in f/K of all pixels, and it is the
/// label or the prediction in f, plus 1/K, minus f/K of them.
fn chance(shares: &[f64]) -> f64 {
    let k = shares.len() as f64;
    shares.iter().map(|f| (f / k) / (f + 1.0 / k - f / k)).sum::<f64>() / k
}

/// Something that an image shows, a row of objects.parquet.
#[derive(Debug)]
pub(super) struct Thing {
    /// Value in the mask of instances; `None` for a ground.
    instance: Option<u8>,
    class: usize,
    colour: Option<usize>,
    /// Centre and radius as fractions of the image's width; 0 for a ground.
    place: [f32; 3],
    pixels: u32,
    visible: bool,
}

/// The grounds and objects of a scene.
pub(super) fn things(scene: &Scene) -> Vec<Thing> {
    let pixels = Pixels::of(&scene.mask).counts;
    let grounds = scene.grounds.iter().map(|&class| {
        let pixels = pixels[class] as u32;
        Thing { instance: None, class, colour: None, place: [0.0; 3], pixels, visible: true }
    });
    let objects = (1..).zip(&scene.placed).map(|(value, placed)| Thing {
        instance: Some(value),
        class: placed.object.class,
        colour: placed.object.colour,
        place: [placed.object.x, placed.object.y, placed.object.radius],
        pixels: placed.pixels as u32,
        visible: placed.visible,
    });
    grounds.chain(objects).collect()
}

fn write_things(path: &Path, of_images: &[(String, &Rendered)]) -> Result<()> {
    let rows: Vec<(&str, &Thing)> = of_images
        .iter()
        .flat_map(|(image, scene)| scene.things.iter().map(move |thing| (image.as_str(), thing)))
        .collect();
    let numbers = |of: fn(&Thing) -> f32| -> ArrayRef {
        Arc::new(Float32Array::from_iter_values(rows.iter().map(|(_, thing)| of(thing))))
    };
    let colour = |thing: &Thing| thing.colour.map(|colour| COLOURS[colour]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("image", Arc::new(StringArray::from_iter_values(rows.iter().map(|(image, _)| image)))),
        ("instance", Arc::new(rows.iter().map(|(_, thing)| thing.instance).collect::<UInt8Array>())),
        (
            "class",
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, thing)| CLASSES[thing.class].name))),
        ),
        ("colour", Arc::new(rows.iter().map(|(_, thing)| colour(thing)).collect::<StringArray>())),
        ("x", numbers(|thing| thing.place[0])),
        ("y", numbers(|thing| thing.place[1])),
        ("radius", numbers(|thing| thing.place[2])),
        ("pixels", Arc::new(UInt32Array::from_iter_values(rows.iter().map(|(_, thing)| thing.pixels)))),
        ("visible", Arc::new(rows.iter().map(|(_, thing)| Some(thing.visible)).collect::<BooleanArray>())),
    ];
    crate::table::write(
        path,
        &RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, column)| (name, column, matches!(name, "instance" | "colour"))),
        )?,
    )
}

/// Writes the files of the whole dataset; returns the content of scenes.json.
pub(super) fn write(
    arguments: &Arguments,
    folder: &Path,
    scenes: &[Rendered],
    pixels: &Pixels,
) -> Result<serde_json::Value> {
    let save = |name: &str, text: String| {
        let path = folder.join(name);
        files::write_atomic(&path, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    };
    save("classes.txt", CLASSES.iter().map(|class| class.name.to_owned() + "\n").collect())?;
    if arguments.two_names {
        save("second-names.txt", names::lines())?;
    }
    let of_images: Vec<(String, &Rendered)> =
        (arguments.first_index..).map(|index| format!("images/{}.jpg", stem(index))).zip(scenes).collect();
    if arguments.with_objects() {
        write_things(&folder.join("objects.parquet"), &of_images)?;
    }
    if arguments.besides.expressions {
        let lines = of_images.iter().flat_map(|(image, scene)| {
            let mask = image.replace("images/", "instances/").replace(".jpg", ".png");
            scene.expressions.iter().map(move |expression| {
                let line = json!({
                    "image": image,
                    "mask": mask,
                    "values": expression.objects,
                    "expression": expression.text,
                    "kind": expression.kind,
                });
                line.to_string() + "\n"
            })
        });
        save("expressions.jsonl", lines.collect())?;
    }

    let prefix = match arguments.url_prefix.trim_end_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    let mut urls = Vec::new();
    let mut texts = Vec::new();
    let (mut originals, mut mismatched) = (Vec::new(), Vec::new());
    for (image, scene) in &of_images {
        for caption in &scene.captions {
            urls.push(format!("{prefix}{image}"));
            texts.push(caption.text.as_str());
            mismatched.push(matches!(scene.role, Role::CaptionsOf(_)));
            originals.push(match scene.role {
                Role::DuplicateOf(other) => Some(stem(arguments.first_index + other)),
                _ => None,
            });
        }
    }
    let rows = texts.len();
    let (urls, texts) = (StringArray::from(urls), StringArray::from(texts));
    let mut columns: Vec<(&str, ArrayRef)> = vec![("URL", Arc::new(urls)), ("TEXT", Arc::new(texts))];
    if arguments.duplicates > 0.0 || arguments.mismatched > 0.0 {
        columns.push(("duplicate_of", Arc::new(StringArray::from(originals))));
        columns.push(("mismatched", Arc::new(BooleanArray::from(mismatched))));
    }
    let path = folder.join("captions.parquet");
    crate::table::write(&path, &RecordBatch::try_from_iter(columns)?)?;

    let shares = pixels.shares();
    let mut mentioned = [0_u64; CLASSES.len()];
    for (class, _) in scenes.iter().flat_map(|scene| &scene.captions).flat_map(|caption| &caption.mentioned) {
        mentioned[*class] += 1;
    }
    let classes: Vec<_> = (0..CLASSES.len())
        .map(|class| {
            json!({
                "name": CLASSES[class].name,
                "pixel_share": shares[class],
                "images": pixels.images[class],
                "captions": mentioned[class],
            })
        })
        .collect();
    let summary = json!({
        "made_by": concat!("tools scenes ", env!("CARGO_PKG_VERSION")),
        "seed": arguments.seed,
        "first_index": arguments.first_index,
        "images": arguments.count,
        "size": arguments.size,
        "captions": rows,
        "zipf": arguments.zipf,
        "naming_rate": arguments.naming_rate,
        "two_names": arguments.two_names,
        "colours": arguments.colours,
        "expressions": scenes.iter().map(|scene| scene.expressions.len()).sum::<usize>(),
        "duplicates": scenes.iter().filter(|scene| matches!(scene.role, Role::DuplicateOf(_))).count(),
        "mismatched": scenes.iter().filter(|scene| matches!(scene.role, Role::CaptionsOf(_))).count(),
        "chance": chance(&shares),
        "classes": classes,
    });
    save(SCENES, serde_json::to_string_pretty(&summary)? + "\n")?;
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn chance_by_hand() {
        // Two classes with half of the pixels each: a quarter of them is correct; the union is half + half - a quarter.
        assert!((chance(&[0.5, 0.5]) - 1.0 / 3.0).abs() < 1e-12);
        // 0.45 / 0.95 and 0.05 / 0.55.
        let wanted = f64::midpoint(0.45 / 0.95, 0.05 / 0.55);
        assert!((chance(&[0.9, 0.1]) - wanted).abs() < 1e-12);
    }

    #[test]
    fn chance_by_experiment() {
        let shares = [0.6, 0.25, 0.1, 0.05];
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let (mut hits, mut unions) = ([0.0; 4], [0.0; 4]);
        for i in 0..400_000 {
            let place = f64::from(i) / 400_000.0;
            let truth = [0.6, 0.85, 0.95, 1.0].iter().position(|&end| place < end).unwrap();
            let guess = rng.random_range(0..4);
            unions[truth] += 1.0;
            if truth == guess {
                hits[truth] += 1.0;
            } else {
                unions[guess] += 1.0;
            }
        }
        let miou: f64 = hits.iter().zip(unions).map(|(hit, union)| hit / union).sum::<f64>() / 4.0;
        assert!((miou - chance(&shares)).abs() < 2e-3, "{miou} against {}", chance(&shares));
    }
}
