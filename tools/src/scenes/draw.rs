//! One scene: the positions of its grounds and objects, its light, and the image and mask that follow from these.
//!
//! Every pixel has [`SAMPLES`] x [`SAMPLES`] point samples. Its colour in the image is their mean, its class in the
//! mask is that of most of them. Light, shadows and camera noise change only colours, never the mask.

use std::f32::consts::TAU;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::classes::{CLASSES, GROUNDS};
use super::colours;
use super::frequencies::Frequencies;
use super::grounds::{Ground, REFERENCE};
use super::objects::{Object, REACH};
use super::paint::{Rgb, noise, smoothstep};

/// Point samples per pixel along each axis. Odd, so that one sample is at the pixel's centre.
const SAMPLES: usize = 3;

/// An object or a ground is visible, so that captions may mention it, if it covers at least this fraction of the image.
const OBJECT_VISIBLE: f32 = 0.006;
const GROUND_VISIBLE: f32 = 0.05;

/// What captions say about an object.
#[derive(Debug, Clone)]
pub(crate) struct SceneObject {
    pub(crate) class: usize,
    /// Centre and radius as fractions of the image's width.
    pub(crate) x: f32,
    pub(crate) y: f32,
    pub(crate) radius: f32,
    /// Class of the ground under its centre.
    pub(crate) ground: usize,
    /// Its colour, an index of [`colours::COLOURS`], unless its class says it.
    pub(crate) colour: Option<usize>,
}

/// An object of a scene, visible or not.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) object: SceneObject,
    /// Pixels in the mask.
    pub(crate) pixels: usize,
    /// Whether captions may mention it.
    pub(crate) visible: bool,
}

/// What scenes show.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    pub(crate) frequencies: Frequencies,
    /// Whether objects have colours that do not follow from their classes.
    pub(crate) colours: bool,
}

/// A drawn scene.
#[derive(Debug)]
pub(crate) struct Scene {
    /// [size, size, 3], RGB.
    pub(crate) pixels: Vec<u8>,
    /// [size, size], class index.
    pub(crate) mask: Vec<u8>,
    /// [size, size], 1 + index in `placed`; 0 where a ground is seen.
    pub(crate) instances: Vec<u8>,
    /// All objects, those behind others first.
    pub(crate) placed: Vec<Placed>,
    /// The visible objects.
    pub(crate) objects: Vec<SceneObject>,
    /// The classes of the visible grounds.
    pub(crate) grounds: Vec<usize>,
    /// Phrases that describe the light.
    pub(crate) light: &'static [&'static str],
}

/// Width of the dark crease on each side of the border between two grounds, reference pixels.
const CREASE: f32 = 3.0;

/// The border between two grounds: a straight line at distance `middle` from the origin, with waves.
#[derive(Debug)]
struct Border {
    normal: (f32, f32),
    middle: f32,
    wave: f32,
    seed: u32,
}

impl Border {
    /// Signed distance of a point from the border, reference pixels; positive on the second ground's side.
    fn side(&self, x: f32, y: f32) -> f32 {
        let straight = x * self.normal.0 + y * self.normal.1 - self.middle;
        // Most points are farther away than the waves and the crease reach.
        if straight.abs() > self.wave + CREASE {
            return straight;
        }
        let along = x * self.normal.1 - y * self.normal.0;
        let bend = noise(along / 24.0, 0.5, self.seed) + 0.3 * noise(along / 7.0, 1.5, self.seed) - 0.65;
        straight + self.wave * bend
    }
}

/// The scene's light: its direction, strength and colour, and how it falls off.
#[derive(Debug)]
struct Light {
    /// Unit vector towards the light; x points right, y down, z to the viewer.
    from: [f32; 3],
    strength: f32,
    /// Difference in brightness between the side of the image near the light and the far side.
    fall: f32,
    tint: [f32; 3],
    /// Darkening of the corners.
    vignette: f32,
    /// How dark shadows are, 0..1.
    shadow: f32,
    /// Standard deviation of the camera's noise.
    grain: f32,
}

impl Light {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        let around: f32 = rng.random_range(0.0..TAU);
        // Mostly from above, as sunlight.
        let (x, y) = (around.cos(), if rng.random_bool(0.75) { -around.sin().abs() } else { around.sin() });
        let height: f32 = rng.random_range(0.55..0.85);
        let flat = (1.0 - height * height).sqrt();
        let warmth: f32 = rng.random_range(-0.07..0.09);
        Self {
            from: [x * flat, y * flat, height],
            strength: rng.random_range(0.80..1.16),
            fall: rng.random_range(0.0..0.30),
            tint: [1.0 + warmth, 1.0 + rng.random_range(-0.015..0.015), 1.0 - warmth],
            vignette: rng.random_range(0.0..0.22),
            shadow: rng.random_range(0.28..0.58),
            grain: rng.random_range(0.006..0.030),
        }
    }

    fn phrases(&self) -> &'static [&'static str] {
        if self.strength > 1.08 {
            &["in bright light", "on a bright day"]
        } else if self.strength < 0.86 {
            &["in dim light", "in the shade"]
        } else if self.tint[0] > 1.05 {
            &["in warm light", "in the evening light"]
        } else if self.tint[0] < 0.96 {
            &["in cool light", "in the morning light"]
        } else {
            &["in soft light", "on a quiet day"]
        }
    }
}

/// Scene `index` of the dataset with this seed, `size` pixels wide and high. The result depends on nothing else than these and
/// the content, and the same scene is drawn at every size.
pub(crate) fn draw(seed: u64, index: u64, size: usize, content: &Content) -> Scene {
    let mut rng = stream(seed, index, 0);
    let mut shades = content.colours.then(|| stream(seed ^ SHADES, index, 0));
    loop {
        let scene = attempt(&mut rng, shades.as_mut(), size, &content.frequencies);
        // Objects may hide each other; at least two must be visible.
        if scene.objects.len() >= 2 && !scene.grounds.is_empty() {
            return scene;
        }
    }
}

/// The random numbers of one scene for one purpose: 0 the image, 1 the captions.
pub(crate) fn stream(seed: u64, index: u64, purpose: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index.wrapping_mul(2).wrapping_add(purpose));
    rng
}

/// Separates the random numbers of colours from those of scenes.
const SHADES: u64 = 0x7368_6164_6573_0000;

fn attempt(
    rng: &mut ChaCha8Rng,
    shades: Option<&mut ChaCha8Rng>,
    size: usize,
    frequencies: &Frequencies,
) -> Scene {
    let light = Light::new(rng);
    let mut kinds: Vec<usize> = (0..GROUNDS).collect();
    kinds.shuffle(rng);
    let two = rng.random_bool(0.55);
    let border = border(rng, &mut kinds);
    let grounds = [Ground::new(kinds[0], rng), Ground::new(kinds[1], rng)];
    let second = |x: f32, y: f32| two && border.side(x, y) > 0.0;
    let ground_at = |x: f32, y: f32| kinds[usize::from(second(x * REFERENCE, y * REFERENCE))];
    let placed = place(rng, shades, &light, frequencies, ground_at);
    let noise_seed: u64 = rng.random();

    // The samples: their colours and owners (0 and 1 are the grounds, then the objects follow).
    let side = size * SAMPLES;
    let unit = REFERENCE / side as f32;
    let mut colours = Vec::with_capacity(side * side);
    let mut owners = Vec::with_capacity(side * side);
    for row in 0..side {
        let y = (row as f32 + 0.5) * unit;
        for column in 0..side {
            let x = (column as f32 + 0.5) * unit;
            let distance = if two { border.side(x, y) } else { f32::MIN };
            let owner = u8::from(distance > 0.0);
            // The crease at the border gets little light.
            let crease = 1.0 - 0.30 * smoothstep(CREASE, 0.0, distance.abs());
            // Only every second sample, as on a chessboard, is computed; the others repeat their neighbour. Nine
            // computed samples would not look better.
            let colour = match (colours.last(), owners.last()) {
                (Some(&last), Some(&before)) if (row + column) % 2 == 1 && before == owner && column > 0 => {
                    last
                }
                _ => grounds[usize::from(owner)].colour(x, y) * crease,
            };
            colours.push(colour);
            owners.push(owner);
        }
    }
    let mut canvas = Canvas { size, side, colours, owners };
    for (number, placement) in placed.iter().enumerate() {
        canvas.paint(placement, 2 + number as u8, &light);
    }
    let owners = canvas.majority(2 + placed.len());
    let pixels = canvas.develop(&light, noise_seed);

    let mut counts = vec![0_usize; 2 + placed.len()];
    for &owner in &owners {
        counts[usize::from(owner)] += 1;
    }
    let share = |owner: usize| counts[owner] as f32 / owners.len() as f32;
    let objects: Vec<Placed> = (2..)
        .zip(&placed)
        .map(|(owner, placement)| {
            let object = placement.object.clone();
            // A small object is visible if most of it is.
            let whole = object.radius * object.radius;
            let visible = share(owner) >= OBJECT_VISIBLE.max(0.5 * whole);
            Placed { object, pixels: counts[owner], visible }
        })
        .collect();
    let seen = (0..2).filter(|&owner| share(owner) >= GROUND_VISIBLE).map(|owner| kinds[owner]).collect();
    let class_of = |owner: u8| match usize::from(owner) {
        ground @ 0..2 => kinds[ground] as u8,
        object => placed[object - 2].object.class as u8,
    };
    let mask = owners.iter().map(|&owner| class_of(owner)).collect();
    Scene {
        pixels,
        mask,
        instances: owners.into_iter().map(|owner| owner.saturating_sub(1)).collect(),
        objects: objects.iter().filter(|placed| placed.visible).map(|placed| placed.object.clone()).collect(),
        placed: objects,
        grounds: seen,
        light: light.phrases(),
    }
}

/// A random border between two grounds, mostly like a horizon. A wall is then the upper ground, never the lower.
fn border(rng: &mut ChaCha8Rng, kinds: &mut [usize]) -> Border {
    let straight = |kind: usize| CLASSES[kind].name == "brick wall" || CLASSES[kind].name == "wood";
    let angle: f32 = match rng.random_range(0..10) {
        0..7 => TAU / 4.0 + rng.random_range(-0.12..0.12),
        7..9 => rng.random_range(-0.12..0.12),
        _ => rng.random_range(0.5..1.1),
    };
    let normal = (angle.cos(), angle.sin());
    if CLASSES[kinds[1]].name == "brick wall" && normal.1 > 0.4 {
        kinds.swap(0, 1);
    }
    let wave = if straight(kinds[0]) || straight(kinds[1]) { 1.5 } else { rng.random_range(4.0..13.0) };
    let centre = REFERENCE * (rng.random_range(0.32..0.68) * (normal.0 + normal.1));
    Border { normal, middle: centre, wave, seed: rng.random() }
}

/// An object, its appearance and its orientation in the image.
#[derive(Debug)]
struct Placement {
    object: SceneObject,
    appearance: Object,
    rotation: f32,
    mirrored: bool,
}

/// Two to five objects, as far from each other as space allows, in drawing order (the nearest to the viewer last).
fn place(
    rng: &mut ChaCha8Rng,
    mut shades: Option<&mut ChaCha8Rng>,
    light: &Light,
    frequencies: &Frequencies,
    ground_at: impl Fn(f32, f32) -> usize,
) -> Vec<Placement> {
    let count = rng.random_range(2..=5);
    let mut objects: Vec<SceneObject> = Vec::with_capacity(count);
    while objects.len() < count {
        // Some classes occur two or three times, so that captions can use plurals.
        let class = match objects.last() {
            Some(last) if rng.random_bool(0.18) => last.class,
            _ => frequencies.class(rng),
        };
        let radius: f32 = rng.random_range(0.115..0.225);
        let margin = 0.75 * radius;
        let mut best: Option<(f32, SceneObject)> = None;
        for _ in 0..24 {
            let (x, y) = (rng.random_range(margin..1.0 - margin), rng.random_range(margin..1.0 - margin));
            // Distance to the nearest other object, as a fraction of the sum of both radii.
            let room =
                objects.iter().map(|o| (o.x - x).hypot(o.y - y) / (o.radius + radius)).fold(2.0, f32::min);
            if best.as_ref().is_none_or(|(most, _)| room > *most) {
                let ground = ground_at(x, y);
                best = Some((room, SceneObject { class, x, y, radius, ground, colour: None }));
            }
            // A small overlap is natural; a larger one would hide objects.
            if room > 0.92 {
                break;
            }
        }
        objects.extend(best.map(|(_, object)| object));
    }
    objects.sort_by(|a, b| (a.y + a.radius).total_cmp(&(b.y + b.radius)));
    let place = |mut object: SceneObject| {
        let mut appearance = Object::new(object.class, rng);
        if let Some(shades) = shades.as_deref_mut() {
            let colour = colours::choose(shades);
            appearance = appearance.in_colour(object.class, colours::shade(colour, shades));
            object.colour = Some(colour);
        }
        let rotation = rng.random_range(-appearance.tilt..=appearance.tilt);
        let mirrored = rng.random_bool(0.5);
        // The direction of the light in the object's coordinates: undo the rotation, then the mirroring.
        let [x, y, z] = light.from;
        let (sin, cos) = rotation.sin_cos();
        let (x, y) = (x * cos + y * sin, y * cos - x * sin);
        let appearance = appearance.lit_from([if mirrored { -x } else { x }, y, z]);
        Placement { object, appearance, rotation, mirrored }
    };
    objects.into_iter().map(place).collect()
}

/// The samples of an image.
struct Canvas {
    /// Width and height in pixels.
    size: usize,
    /// Width and height in samples.
    side: usize,
    colours: Vec<Rgb>,
    owners: Vec<u8>,
}

impl Canvas {
    /// Paints the shadow of an object, then the object, over what has been painted.
    fn paint(&mut self, placement: &Placement, owner: u8, light: &Light) {
        let Placement { object, appearance, rotation, mirrored } = placement;
        let side = self.side as f32;
        let (sin, cos) = rotation.sin_cos();
        // Half the side of a square that contains the object's rotated square.
        let half = object.radius * REACH * (sin.abs() + cos.abs());
        let span = |centre: f32| {
            let (low, high) = ((centre - half) * side, (centre + half) * side);
            (low.floor().max(0.0) as usize, (high.ceil().max(0.0) as usize).min(self.side))
        };
        let ((left, right), (top, bottom)) = (span(object.x), span(object.y));
        let mut layer = Vec::with_capacity((right - left) * (bottom - top));
        for row in top..bottom {
            let dy = ((row as f32 + 0.5) / side - object.y) / object.radius;
            for column in left..right {
                let dx = ((column as f32 + 0.5) / side - object.x) / object.radius;
                let (u, v) = (dx * cos + dy * sin, dy * cos - dx * sin);
                let u = if *mirrored { -u } else { u };
                layer.push(if u.abs().max(v.abs()) < REACH { appearance.colour(u, v) } else { None });
            }
        }
        if layer.is_empty() {
            return;
        }
        self.shade(&layer, (left, top, right - left), object.radius, light);
        for (line, row) in layer.chunks(right - left).zip(top..) {
            for (colour, at) in line.iter().zip(row * self.side + left..) {
                if let Some(colour) = *colour {
                    self.colours[at] = colour;
                    self.owners[at] = owner;
                }
            }
        }
    }

    /// Darkens the samples in the soft shadow of an object's layer, given with its upper left sample and its width.
    fn shade(
        &mut self,
        layer: &[Option<Rgb>],
        (left, top, width): (usize, usize, usize),
        radius: f32,
        light: &Light,
    ) {
        // A shadow is smooth, so it is computed per pixel. First, the fraction of each pixel that the object covers.
        let size = self.size;
        let mut cover = vec![0.0_f32; size * size];
        for (line, row) in layer.chunks(width).zip(top..) {
            let start = row / SAMPLES * size;
            for (colour, column) in line.iter().zip(left..) {
                if colour.is_some() {
                    cover[start + column / SAMPLES] += 1.0 / (SAMPLES * SAMPLES) as f32;
                }
            }
        }
        // The shadow is shifted away from the light, and two box blurs make its edge soft; both grow with the radius.
        let drop = 0.30 * radius * size as f32;
        let (dx, dy) =
            ((-light.from[0] * drop).round() as isize, (-light.from[1] * drop).round() as isize + 1);
        let reach = ((0.085 * radius * size as f32).round() as usize).max(1);
        let edge = 3 * reach + dx.unsigned_abs().max(dy.unsigned_abs());
        let (x0, x1) = (bound(left / SAMPLES, edge, size).0, bound((left + width) / SAMPLES, edge, size).1);
        let height = layer.len() / width;
        let (y0, y1) = (bound(top / SAMPLES, edge, size).0, bound((top + height) / SAMPLES, edge, size).1);
        for _ in 0..2 {
            blur(&mut cover, size, (x0, x1), (y0, y1), reach);
        }
        for y in y0..y1 {
            for x in x0..x1 {
                let (from_x, from_y) = (x as isize - dx, y as isize - dy);
                if from_x < 0 || from_y < 0 || from_x >= size as isize || from_y >= size as isize {
                    continue;
                }
                let dark = 1.0 - light.shadow * cover[from_y as usize * size + from_x as usize];
                if dark < 1.0 {
                    for row in y * SAMPLES..(y + 1) * SAMPLES {
                        let start = row * self.side + x * SAMPLES;
                        for colour in &mut self.colours[start..start + SAMPLES] {
                            *colour = *colour * dark;
                        }
                    }
                }
            }
        }
    }

    /// The owner of most samples of each pixel; of equally frequent owners, that of the centre.
    fn majority(&self, owners: usize) -> Vec<u8> {
        let mut result = Vec::with_capacity(self.size * self.size);
        let mut votes = vec![0_u8; owners];
        for y in 0..self.size {
            for x in 0..self.size {
                let sample = |row: usize, column: usize| {
                    self.owners[(y * SAMPLES + row) * self.side + x * SAMPLES + column]
                };
                let centre = sample(SAMPLES / 2, SAMPLES / 2);
                if (0..SAMPLES).all(|row| (0..SAMPLES).all(|column| sample(row, column) == centre)) {
                    result.push(centre);
                    continue;
                }
                votes.fill(0);
                for row in 0..SAMPLES {
                    for column in 0..SAMPLES {
                        votes[usize::from(sample(row, column))] += 1;
                    }
                }
                let most = votes.iter().copied().max().unwrap_or(0);
                let winner = votes.iter().position(|&v| v == most).unwrap_or(0) as u8;
                result.push(if votes[usize::from(centre)] == most { centre } else { winner });
            }
        }
        result
    }

    /// Computes the pixels from the samples, with the scene's light and camera noise.
    fn develop(&self, light: &Light, noise_seed: u64) -> Vec<u8> {
        let mut rng = ChaCha8Rng::seed_from_u64(noise_seed);
        let mut pixels = Vec::with_capacity(self.size * self.size * 3);
        let unit = 1.0 / self.size as f32;
        for y in 0..self.size {
            for x in 0..self.size {
                let mut sum = Rgb([0.0; 3]);
                for row in 0..SAMPLES {
                    let start = (y * SAMPLES + row) * self.side + x * SAMPLES;
                    for colour in &self.colours[start..start + SAMPLES] {
                        // Highlights are clipped to white before the mean, otherwise the edges around them would glow.
                        let Rgb([r, g, b]) = *colour;
                        sum = sum + Rgb([r.min(1.0), g.min(1.0), b.min(1.0)]);
                    }
                }
                let (dx, dy) = ((x as f32 + 0.5) * unit - 0.5, (y as f32 + 0.5) * unit - 0.5);
                let towards = dx * light.from[0] + dy * light.from[1];
                let bright = light.strength
                    * (1.0 + light.fall * towards)
                    * (1.0 - light.vignette * 2.0 * (dx * dx + dy * dy));
                for (value, tint) in
                    (sum * (bright / (SAMPLES * SAMPLES) as f32)).0.into_iter().zip(light.tint)
                {
                    // The sum of four uniform numbers is approximately normally distributed.
                    let bytes = rng.next_u32_bytes();
                    let spread = (bytes.iter().map(|&b| f32::from(b)).sum::<f32>() - 510.0) / 147.8;
                    // The cast clamps to 0..=255.
                    pixels.push((255.0 * (value * tint + light.grain * spread) + 0.5) as u8);
                }
            }
        }
        pixels
    }
}

/// The range of pixels within `edge` of `at`, clipped to the image.
fn bound(at: usize, edge: usize, size: usize) -> (usize, usize) {
    (at.saturating_sub(edge), (at + edge + 1).min(size))
}

/// A box blur of radius `reach` inside a rectangle, first along rows, then along columns.
fn blur(values: &mut [f32], size: usize, (x0, x1): (usize, usize), (y0, y1): (usize, usize), reach: usize) {
    let mut line = Vec::new();
    let mut pass = |values: &mut [f32], start: usize, step: usize, count: usize| {
        line.clear();
        line.extend((0..count).map(|i| values[start + i * step]));
        let weight = 1.0 / (2 * reach + 1) as f32;
        for i in 0..count {
            let window = &line[i.saturating_sub(reach)..(i + reach + 1).min(count)];
            values[start + i * step] = weight * window.iter().sum::<f32>();
        }
    };
    for y in y0..y1 {
        pass(values, y * size + x0, 1, x1 - x0);
    }
    for x in x0..x1 {
        pass(values, y0 * size + x, size, y1 - y0);
    }
}

/// Four random bytes at once.
trait Bytes {
    fn next_u32_bytes(&mut self) -> [u8; 4];
}

impl Bytes for ChaCha8Rng {
    fn next_u32_bytes(&mut self) -> [u8; 4] {
        self.random::<u32>().to_le_bytes()
    }
}

#[cfg(test)]
mod tests;
