//! The six grounds. Each is a function from a point to a colour, so that it can be sampled at any resolution.
//!
//! Points are in reference pixels: the image is [`REFERENCE`] reference pixels wide and high, whatever its real size.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::paint::{Rgb, cell, floor, noise, noise2, ridge, shade_of, smoothstep};

/// The width and height of the image for which the textures are designed, pixels.
pub(crate) const REFERENCE: f32 = 112.0;

/// One ground of one scene, with its random colours, scale and direction.
#[derive(Debug)]
pub(crate) struct Ground {
    paint: fn(&Ground, f32, f32) -> Rgb,
    main: Rgb,
    second: Rgb,
    /// Size of the repeating element (ripple, brick, plank), reference pixels.
    pitch: f32,
    /// Cosine and sine of the texture's rotation.
    turn: (f32, f32),
    seed: u32,
}

impl Ground {
    /// A ground of this class with random colours, scale and direction.
    pub(crate) fn new(class: usize, rng: &mut ChaCha8Rng) -> Self {
        let r = &mut *rng;
        // (painter, main colour, second colour, pitch, maximum rotation in either direction in radians)
        type Kind = (fn(&Ground, f32, f32) -> Rgb, Rgb, Rgb, f32, f32);
        let (paint, main, second, pitch, turn): Kind = match class {
            0 => (
                grass,
                shade_of(r, 0.30, 0.72, 0.36),
                shade_of(r, 0.235, 0.62, 0.72),
                r.random_range(5.5..9.0),
                0.35,
            ),
            1 => (
                sand,
                shade_of(r, 0.112, 0.36, 0.86),
                shade_of(r, 0.085, 0.46, 0.66),
                r.random_range(9.0..15.0),
                1.2,
            ),
            2 => (
                water,
                shade_of(r, 0.575, 0.80, 0.62),
                shade_of(r, 0.525, 0.42, 0.95),
                r.random_range(10.0..16.0),
                0.3,
            ),
            3 => (
                snow,
                shade_of(r, 0.58, 0.05, 0.95),
                shade_of(r, 0.61, 0.24, 0.80),
                r.random_range(18.0..34.0),
                0.8,
            ),
            4 => (
                bricks,
                shade_of(r, 0.025, 0.60, 0.60),
                shade_of(r, 0.09, 0.12, 0.78),
                r.random_range(8.0..11.0),
                0.05,
            ),
            _ => (
                wood,
                shade_of(r, 0.06, 0.60, 0.36),
                shade_of(r, 0.045, 0.68, 0.21),
                r.random_range(15.0..22.0),
                0.08,
            ),
        };
        // Planks are horizontal or vertical.
        let quarter = if class == 5 && r.random_bool(0.5) { std::f32::consts::FRAC_PI_2 } else { 0.0 };
        let angle: f32 = r.random_range(-turn..turn) + quarter;
        Self { paint, main, second, pitch, turn: (angle.cos(), angle.sin()), seed: r.random() }
    }

    /// The colour at a point.
    pub(crate) fn colour(&self, x: f32, y: f32) -> Rgb {
        let (cos, sin) = self.turn;
        (self.paint)(self, x * cos + y * sin, y * cos - x * sin)
    }
}

/// Blades: narrow vertical noise in two layers, bent by slow noise, over lighter and darker patches.
fn grass(g: &Ground, x: f32, y: f32) -> Rgb {
    let lean = 7.0 * noise(x / 16.0, y / 16.0, g.seed);
    let back = noise((x + lean) * 0.55, y / g.pitch, g.seed ^ 1);
    let front = ridge((x - 0.7 * lean) * 0.42, y / (1.3 * g.pitch), g.seed ^ 2);
    let patch = noise(x / 26.0, y / 26.0, g.seed ^ 3);
    let blade = smoothstep(0.72, 1.0, front);
    let depth = 0.12 + 0.55 * back * back + 0.30 * patch;
    g.main.mix(g.second, depth) * (0.78 + 0.35 * back) + g.second * (0.30 * blade)
}

/// Grains over ripples with a lit and a shaded side, and some dark specks.
fn sand(g: &Ground, x: f32, y: f32) -> Rgb {
    let bend = 1.6 * noise(x / 30.0, y / 22.0, g.seed);
    let ripple = (std::f32::consts::TAU * (y / g.pitch + bend)).sin();
    let slow = noise2(x / 24.0, y / 24.0, g.seed ^ 1);
    let (column, row) = (floor(x * 1.25), floor(y * 1.25));
    let grain = cell(column, row, g.seed ^ 2);
    let speck = if cell(column, row, g.seed ^ 3) > 0.985 { 0.72 } else { 1.0 };
    let colour = g.main.mix(g.second, 0.30 - 0.22 * ripple + 0.45 * (slow - 0.5));
    colour * ((0.90 + 0.20 * grain) * speck)
}

/// Depth from slow noise, a network of light lines from two warped ridges, and highlights on them.
fn water(g: &Ground, x: f32, y: f32) -> Rgb {
    let (wx, wy) = (noise(x / 13.0, y / 11.0, g.seed), noise(x / 11.0 + 40.0, y / 13.0, g.seed ^ 1));
    let (u, v) = (x + 9.0 * wx, 1.7 * y + 9.0 * wy);
    let one = ridge(u / g.pitch, v / g.pitch, g.seed ^ 2);
    let two = ridge(1.4 * u / g.pitch + 9.0, 1.4 * v / g.pitch, g.seed ^ 3);
    let net = smoothstep(0.80, 1.0, one) * 0.65 + smoothstep(0.84, 1.0, two) * 0.4;
    let deep = noise(x / 34.0, y / 20.0, g.seed ^ 4);
    g.main.mix(g.second, 0.06 + 0.22 * deep + 0.62 * net) * (0.86 + 0.25 * deep)
        + Rgb::WHITE * (0.22 * smoothstep(0.75, 1.0, net))
}

/// Soft drifts with blue hollows and a few bright crystals.
fn snow(g: &Ground, x: f32, y: f32) -> Rgb {
    let drift = noise2(x / g.pitch, 1.5 * y / g.pitch, g.seed);
    let fine = noise(x / 3.2, y / 3.2, g.seed ^ 1);
    let crystal = if cell(floor(x), floor(y), g.seed ^ 2) > 0.988 { 0.10 } else { 0.0 };
    let hollow = smoothstep(0.62, 0.22, drift);
    g.main.mix(g.second, 0.75 * hollow) * (0.965 + 0.05 * fine + crystal)
}

/// Rows of bricks with lighter mortar between them. Every brick has its own tone and worn edges.
fn bricks(g: &Ground, x: f32, y: f32) -> Rgb {
    let (height, width) = (g.pitch, 2.15 * g.pitch);
    let row = floor(y / height);
    let x = x + if row & 1 == 0 { 0.0 } else { 0.5 * width };
    let column = floor(x / width);
    let (u, v) = (x - column as f32 * width, y - row as f32 * height);
    let wobble = 0.5 * noise(x / 2.5, y / 2.5, g.seed ^ 5);
    let edge = u.min(width - u).min(v).min(height - v) - wobble;
    let rough = noise2(x / 1.7, y / 1.7, g.seed);
    if edge < 0.55 {
        // The mortar is lower than the bricks: the brick above casts a shadow on it.
        let shadow = if v < height / 2.0 { 0.80 } else { 1.0 };
        return g.second * ((0.80 + 0.25 * rough) * shadow);
    }
    let tone = cell(column, row, g.seed ^ 1);
    let colour = g
        .main
        .mix(Rgb([0.42, 0.20, 0.17]), 0.55 * tone)
        .mix(Rgb([0.86, 0.52, 0.38]), 0.30 * cell(column, row, g.seed ^ 2));
    let bevel = smoothstep(0.55, 1.7, edge);
    let lit = if v < height / 2.0 { 0.14 } else { -0.16 };
    colour * (0.82 + 0.36 * rough + lit * (1.0 - bevel))
}

/// Planks with staggered ends, long grain lines bent by slow noise, and dark gaps.
fn wood(g: &Ground, x: f32, y: f32) -> Rgb {
    let width = g.pitch;
    let plank = floor(y / width);
    let v = y - plank as f32 * width;
    let length = 5.2 * width;
    let x = x + length * cell(plank, 0, g.seed ^ 1);
    let board = floor(x / length);
    let u = x - board as f32 * length;
    let gap = v.min(width - v).min(u).min(length - u);
    let own = (board * 57 + plank * 131) as f32;
    let bend = noise(x / 34.0 + own, y / 9.0, g.seed ^ 2);
    let rings = (std::f32::consts::TAU * (y / 5.5 + 2.6 * bend)).sin() * 0.5 + 0.5;
    let fibre = noise(x / 11.0 + own, y * 0.95, g.seed ^ 3);
    let tone = cell(board, plank, g.seed ^ 4);
    let colour = g.main.mix(g.second, 0.62 * rings * rings + 0.25 * (fibre - 0.5));
    let sheen = 0.84 + 0.30 * tone + 0.22 * (fibre - 0.5);
    colour * (sheen * (0.35 + 0.65 * smoothstep(0.1, 0.9, gap)))
}
