//! `trainer eval referring`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use trainer::evaluation::referring::evaluate::{
    Control, CountSettings, Method, Record, ReferringScores, calibration, evaluate,
};
use trainer::evaluation::referring::regions::MaskRule;
use trainer::evaluation::referring::scores::Scores;
use trainer::evaluation::referring::{Place, ReferringSet, open};
use trainer::evaluation::table;
use trainer::inference::referring::find::ReferSettings;
use trainer::inference::referring::referrer::Referrer;
use trainer::inference::window::{Resize, Window};
use trainer::towers::Dense;
use trainer::{Error, Result};

use super::parts::DenseArgs;
use super::{EvalModelArgs, write_results};
use crate::commands::choices;
use crate::commands::console::Console;
use crate::commands::options::{ReferArgs, WindowArgs};

/// Maximum number of missing files that `--check` lists.
const MAX_LISTED: usize = 20;
/// File with what was found for each expression, in the folder `--out`.
const RECORDS: &str = "expressions.jsonl";

/// The expressions, and how they are followed.
#[derive(Debug, Args)]
pub(crate) struct ReferringArgs {
    /// Set of expressions: refcoco, refcoco+, refcocog, grefcoco or phrasecut, in the layout in which it is published; or `folder` for your
    /// own: expressions.jsonl with images and masks, see docs/referring.md.
    #[arg(long, default_value = "folder")]
    dataset: String,
    /// Folder of the set: of refcoco the one with refs(unc).p (or .json) and instances.json, or the folder above it.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder of the images of a published set: COCO's train2014, or Visual Genome for phrasecut.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Split of a published set [default: val].
    #[arg(long)]
    split: Option<String>,
    /// Who split it: unc or google for refcoco, umd or google for refcocog [default: the first].
    #[arg(long, value_name = "NAME")]
    split_by: Option<String>,
    /// Only check whether the set is complete, and list missing files; needs no model.
    #[arg(long)]
    check: bool,
    /// Evaluate only the expressions about the first N images.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Whether pixels under several polygons of an object belong to it [default: union].
    #[arg(long, value_parser = choices::mask_rule())]
    mask_rule: Option<MaskRule>,
    /// Precision counts IoUs above 0.5 .. 0.9 only, not those equal to them, as the evaluators of PhraseCut and TAS.
    #[arg(long)]
    precision_above: bool,
    /// Score something else than the masks of the model.
    #[arg(long, value_parser = choices::control())]
    control: Option<Control>,
    /// Also print the value of --absent-below at which 95 % of the expressions with a target still get a mask, and the N-acc that it gives
    /// on this split.
    #[arg(long)]
    calibrate: bool,
    /// Folder to write: result.json, table.md and expressions.jsonl with the mask's area and the IoU of each expression.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    dense: DenseArgs,
    #[command(flatten)]
    model: EvalModelArgs,
    #[command(flatten)]
    window: WindowArgs,
    #[command(flatten)]
    refer: ReferArgs,
}

impl ReferringArgs {
    pub(super) fn run(&self, json: bool) -> Result<Value> {
        let needs_model = self.control != Some(Control::WholeImage);
        if !self.check && needs_model {
            self.model.check()?;
        }
        let settings = self.refer.settings()?;
        self.refuse_unused()?;
        let (dense, files) = self.dense.dense();
        files.check(dense)?;
        let place = Place {
            data: self.data.clone(),
            images: self.images.clone(),
            split: self.split.clone(),
            split_by: self.split_by.clone(),
        };
        let mut set = open(&self.dataset, &place)?;
        if self.check {
            return check(&set);
        }
        set.check_complete()?;
        set.truncate(self.limit.unwrap_or(usize::MAX));
        let count = CountSettings { rule: self.mask_rule.unwrap_or_default(), above: self.precision_above };
        if !needs_model {
            let about = json!({ "description": "no model" });
            let (scores, records) = evaluate(&set, &Method::WholeImage, count, &Console)?;
            return self.report(&set, &scores, &records, &about, None, json);
        }
        let (model, about) = self.model.open(&(dense, files))?;
        let window = self.window(model.size);
        let referrer = Referrer::new(model, window, settings)?;
        let method = match self.control {
            Some(Control::Patches) => Method::Patches { patch: referrer.patch(), window },
            Some(Control::Mirrored) => Method::Mirrored(&referrer),
            _ => Method::Model(&referrer),
        };
        let (scores, records) = evaluate(&set, &method, count, &Console)?;
        let settings = ReferSettings { expression_weight: Some(referrer.expression_weight()), ..settings };
        self.report(&set, &scores, &records, &about, Some((settings, window)), json)
    }

    /// Refuses options that would change nothing.
    fn refuse_unused(&self) -> Result<()> {
        let drawn = matches!(self.control, Some(Control::WholeImage | Control::Patches));
        let of_coco = !matches!(self.dataset.as_str(), "folder");
        let unused = [
            (
                drawn && self.refer.is_given(),
                "--expression-weight, --cut and --absent-below",
                "the masks of the model",
            ),
            (drawn && self.calibrate, "--calibrate", "the masks of the model"),
            (self.mask_rule.is_some() && !of_coco, "--mask-rule", "a published set"),
        ];
        match unused.into_iter().find(|(is, ..)| *is) {
            None => Ok(()),
            Some((_, option, with)) => {
                Err(Error::Usage(format!("option {option} has an effect only with {with}; leave it out")))
            }
        }
    }

    /// The window; 0 stands for the default.
    fn window(&self, trained: i64) -> Window {
        let short = if self.window.size == 0 { trained } else { i64::from(self.window.size) };
        let stride = if self.window.stride == 0 { (short / 2).max(1) } else { i64::from(self.window.stride) };
        Window { short, long: 0, side: short, stride, resize: Resize::Float, ..Window::PUBLISHED }
    }

    /// Writes and prints the results; returns the summary.
    fn report(
        &self,
        set: &ReferringSet,
        scores: &ReferringScores,
        records: &[Record],
        about: &Value,
        made: Option<(ReferSettings, Window)>,
        json: bool,
    ) -> Result<Value> {
        let found = if self.calibrate { calibration(records) } else { None };
        if self.calibrate && found.is_none() {
            return Err(Error::Failed(
                "--calibrate: no expression has a target, so no threshold can keep 95 %".to_owned(),
            ));
        }
        let without: Vec<Value> = records
            .iter()
            .filter(|record| record.has_no_subject())
            .map(|record| json!({ "id": record.id, "expression": record.expression }))
            .collect();
        let protocol = json!({
            "split by": self.split_by,
            "mask rule": (self.mask_rule == Some(MaskRule::Single)).then_some(MaskRule::Single),
            "precision": if self.precision_above { "above" } else { "at least" },
            "window": made.map(|(_, window)| window),
            "expression weight": made.map(|(settings, _)| settings.expression_weight),
            "cut": made.map(|(settings, _)| settings.cut),
            "absent below": made.and_then(|(settings, _)| settings.absent_below),
            "dense": Some(self.dense.dense().0).filter(|dense| *dense != Dense::Tokens),
        });
        let result = json!({
            "task": "referring", "dataset": set.name, "title": set.title, "split": set.split, "model": about,
            "control": self.control, "protocol": protocol, "scores": scores, "calibration": found,
            "without_subject": without,
        });
        if let Some(out) = &self.out {
            write_results(out, &result, &table::markdown(std::slice::from_ref(&result)))?;
            write_records(&out.join(RECORDS), records)?;
        }
        if !json {
            print_groups(scores);
        }
        if !without.is_empty() {
            println!("{} expressions without a noun for a thing were compared as a whole", without.len());
        }
        if let Some(mirror) = scores.mirror {
            println!(
                "the masks of mirrored images have an IoU of {:.2} % with the mirrored masks",
                100.0 * mirror
            );
        }
        if let Some(found) = found {
            println!(
                "--absent-below {:.4}: T-acc {}, N-acc {}",
                found.absent_below,
                percent(found.t_acc),
                percent(found.n_acc)
            );
        }
        println!("{}", line(&scores.all, scores.images));
        Ok(result)
    }
}

/// Prints whether the set is complete; an error if it is not.
fn check(set: &ReferringSet) -> Result<Value> {
    let (images, expressions, missing) = (set.images.len(), set.samples.len(), set.missing.len());
    let split = if set.split.is_empty() { String::new() } else { format!(" ({})", set.split) };
    println!(
        "{}{split}: {expressions} expressions about {images} images, {missing} files missing",
        set.title
    );
    for path in set.missing.iter().take(MAX_LISTED) {
        println!("missing: {}", path.display());
    }
    if missing > MAX_LISTED {
        println!("missing: {} more", missing - MAX_LISTED);
    }
    set.check_complete()?;
    Ok(
        json!({ "dataset": set.name, "split": set.split, "images": images, "expressions": expressions, "missing": missing }),
    )
}

fn write_records(path: &Path, records: &[Record]) -> Result<()> {
    let mut text = Vec::new();
    for record in records {
        serde_json::to_writer(&mut text, record)
            .map_err(|e| Error::Invalid { path: path.to_owned(), problem: e.to_string() })?;
        text.push(b'\n');
    }
    Ok(storage::replace(path, text)?)
}

fn print_groups(scores: &ReferringScores) {
    if scores.groups.is_empty() {
        return;
    }
    println!(
        "{:<24} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "expressions", "number", "mIoU", "oIoU", "P@0.5", "N-acc"
    );
    for (name, group) in &scores.groups {
        let precise = group.precision.map(|precision| precision[0]);
        let values =
            [group.miou, group.oiou, precise, group.n_acc].map(|v| format!(" {:>8}", percent(v))).concat();
        println!("{name:<24} {:>8}{values}", group.expressions);
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share))
}

fn line(scores: &Scores, images: usize) -> String {
    let general = if scores.with_target < scores.expressions {
        let [giou, ciou, n, t] = [scores.giou, scores.ciou, scores.n_acc, scores.t_acc].map(percent);
        format!(", gIoU {giou}, cIoU {ciou}, N-acc {n}, T-acc {t}")
    } else {
        String::new()
    };
    let precise = scores.precision.map(|precision| precision[0]);
    format!(
        "mIoU {}, oIoU {}, P@0.5 {}{general}, {} expressions, {images} images",
        percent(scores.miou),
        percent(scores.oiou),
        percent(precise),
        scores.expressions
    )
}
