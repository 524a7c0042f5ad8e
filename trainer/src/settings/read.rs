//! Reads settings files and `--set section.key=value`, and says which key or value is wrong.

use std::path::{Path, PathBuf};

use super::Settings;
use crate::error::{Error, Result};

/// Where a reader of an error message finds all settings.
const REFERENCE: &str = "docs/settings.md lists all settings";

impl Settings {
    /// Reads settings files, of which later ones replace values of earlier ones, and applies `overrides` of the form
    /// `section.key=value`.
    pub fn read(paths: &[PathBuf], overrides: &[String]) -> Result<Self> {
        let mut table = toml::Table::new();
        for path in paths {
            let text = storage::read_text(path)?;
            // Checked before it is merged, so that an error names the file and the line.
            toml::from_str::<Self>(&text).map_err(|error| in_file(path, &text, &error))?;
            merge(&mut table, text.parse().map_err(|error| in_file(path, &text, &error))?);
        }
        let mut changes = Vec::new();
        for change in overrides {
            changes.push(Change::apply(&mut table, change)?);
        }
        let settings: Self = table.try_into().map_err(|error: toml::de::Error| {
            // The files are valid, so one of the overrides is wrong: the one that is wrong by itself.
            let culprit = changes.iter().find_map(Change::problem);
            culprit.unwrap_or_else(|| Error::Usage(format!("--set: {}", one_line(&error.to_string()))))
        })?;
        settings.check()?;
        Ok(settings)
    }
}

/// Replaces values by those of `other`, section by section.
fn merge(table: &mut toml::Table, other: toml::Table) {
    for (name, value) in other {
        match (table.get_mut(&name), value) {
            (Some(toml::Value::Table(mine)), toml::Value::Table(theirs)) => merge(mine, theirs),
            (_, value) => drop(table.insert(name, value)),
        }
    }
}

/// One `section.key=value`.
struct Change {
    key: String,
    /// As the user wrote it.
    text: String,
    value: toml::Value,
}

impl Change {
    /// Sets the value in the table. It is read as TOML, or taken as a string when it is not TOML.
    fn apply(table: &mut toml::Table, change: &str) -> Result<Self> {
        let Some((key, text)) = change.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Error::Usage(format!("--set {change} is not of the form key=value")));
        };
        let value = format!("value = {text}")
            .parse::<toml::Table>()
            .ok()
            .and_then(|mut parsed| parsed.remove("value"))
            .unwrap_or_else(|| toml::Value::String(text.to_owned()));
        let change = Self { key: key.to_owned(), text: text.to_owned(), value };
        change.insert(table)?;
        Ok(change)
    }

    fn insert(&self, table: &mut toml::Table) -> Result<()> {
        let mut path: Vec<&str> = self.key.split('.').collect();
        let last = path.pop().unwrap_or_default();
        let mut section = table;
        let mut parents = Vec::new();
        for part in path {
            parents.push(part);
            let entry = section.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            section = entry.as_table_mut().ok_or_else(|| Error::Setting {
                name: self.key.clone(),
                problem: format!("is unknown: `{}` is not a section. {REFERENCE}", parents.join(".")),
            })?;
        }
        section.insert(last.to_owned(), self.value.clone());
        Ok(())
    }

    /// What is wrong with this change alone; none if nothing is.
    fn problem(&self) -> Option<Error> {
        let mut table = toml::Table::new();
        self.insert(&mut table).ok()?;
        let error = table.try_into::<Settings>().err()?;
        let message = error.message();
        // Other changes may supply what is missing.
        if message.starts_with("missing field") {
            return None;
        }
        if let Some(unknown) = quoted(message, "unknown field") {
            let key = match self.key.split('.').position(|part| part == unknown) {
                Some(at) => self.key.split('.').take(at + 1).collect::<Vec<_>>().join("."),
                // A key inside an inline table.
                None => format!("{}.{unknown}", self.key),
            };
            let hint = did_you_mean(nearest(&key, &keys()));
            return Some(Error::Setting { name: key, problem: format!("is unknown{hint}; {REFERENCE}") });
        }
        let problem = format!("cannot be {}: {}", self.text, plain(message));
        Some(Error::Setting { name: self.key.clone(), problem })
    }
}

/// An error in a settings file, with its line.
fn in_file(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let line = error.span().map_or(String::new(), |span| {
        let before = text.get(..span.start).unwrap_or(text);
        format!(", line {}", before.matches('\n').count() + 1)
    });
    let message = error.message();
    let problem = match quoted(message, "unknown field") {
        Some(unknown) => {
            let hint = did_you_mean(nearest(unknown, &expected(message)));
            format!("unknown setting `{unknown}`{hint}; {REFERENCE}")
        }
        None => plain(message),
    };
    Error::Usage(format!("{}{line}: {problem}", path.display()))
}

/// A message of serde without line breaks and names of Rust types.
fn plain(message: &str) -> String {
    let mut text = one_line(message);
    if let Some(variant) = quoted(message, "unknown variant") {
        let expected = expected(message);
        let hint = did_you_mean(nearest(variant, &expected));
        let choices = expected.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ");
        return format!("it must be one of {choices}{hint}");
    }
    for (rust, words) in [
        (&["usize", "u64", "u32", "i64"][..], "a whole number"),
        (&["f64", "f32"], "a number"),
        (&["a boolean"], "true or false"),
        (&["path string"], "a path"),
    ] {
        for name in rust {
            if let Some(start) = text.strip_suffix(&format!("expected {name}")) {
                text = format!("{start}expected {words}");
            }
        }
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The name in serde's "unknown field `NAME`, expected ..".
fn quoted<'a>(message: &'a str, kind: &str) -> Option<&'a str> {
    message.strip_prefix(kind)?.split('`').nth(1)
}

/// The names after "expected" in the same message.
fn expected(message: &str) -> Vec<String> {
    let list = message.split_once("expected").map_or("", |(_, list)| list);
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn did_you_mean(name: Option<String>) -> String {
    name.map_or(String::new(), |name| format!("; did you mean `{name}`?"))
}

/// The dotted keys of all settings and sections.
fn keys() -> Vec<String> {
    fn collect(value: &serde_json::Value, prefix: &str, keys: &mut Vec<String>) {
        for (name, value) in value.as_object().into_iter().flatten() {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            collect(value, &key, keys);
            keys.push(key);
        }
    }
    let mut keys = Vec::new();
    collect(&Settings::with_every_key(), "", &mut keys);
    keys
}

/// The candidate that the user probably meant: the same key in another section, or one with few letters changed.
fn nearest(wrong: &str, candidates: &[String]) -> Option<String> {
    let leaf = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let same_leaf = candidates.iter().find(|key| leaf(key) == leaf(wrong));
    let similar = || {
        let (changes, key) = candidates.iter().map(|key| (distance(wrong, key), key)).min()?;
        // Two for a pair of letters that changed places.
        (changes <= (wrong.len() / 3).max(2)).then_some(key)
    };
    same_leaf.or_else(similar).cloned()
}

/// Levenshtein distance: inserted, removed and replaced characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::method::losses::Target;
    use crate::method::objective::{Objective, Query, Scope, Tokens};
    use crate::method::optimizer::Rounding;

    fn read(text: &str, overrides: &[&str]) -> Result<Settings> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        fs::write(&path, text).unwrap();
        Settings::read(&[path], &overrides.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    const BASE: &str = "out = 'run'\ndata.shards = ['shards']\nvision.weights = 'tower.safetensors'\n";

    #[test]
    fn values_are_replaced_by_name() {
        let changed = read(
            BASE,
            &["text.width=64", "objective.name=lit", "optimizer.lr=1e-3", "data.scale=[0.25, 1.0]"],
        )
        .unwrap();
        assert_eq!(changed.text.width, 64);
        assert_eq!(changed.objective.name, Objective::Lit);
        assert_eq!(changed.optimizer.lr, Some(1e-3));
        assert_eq!(changed.data.loading.scale, [0.25, 1.0]);
        assert_eq!(
            changed.data.loading.window,
            loader::Options::default().window,
            "the rest keeps its default"
        );
        // A value in two parts, of which neither is complete by itself.
        let cache =
            read(BASE, &["data.cache.folder=cache", "data.cache.limit=1000"]).unwrap().data.loading.cache;
        assert_eq!(cache.unwrap().limit, 1000);
    }

    /// Every preset, and the combinations that their comments name.
    #[test]
    fn presets_can_be_combined() {
        let preset = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("presets/{name}.toml"));
        let more =
            ["out=run", "data.shards=['shards']", "vision.weights=tower.safetensors"].map(str::to_owned);
        for method in ["paper", "released", "lit", "clip"] {
            for size in ["vit-s", "vit-b"] {
                for dataset in ["coco", "laion"] {
                    let settings =
                        Settings::read(&[preset(dataset), preset(size), preset(method)], &more).unwrap();
                    assert_eq!(settings.text.width, if size == "vit-s" { 384 } else { 512 });
                    assert_eq!(settings.clip.output, settings.text.width, "{method}");
                    assert_eq!(settings.optimizer.beta2, 0.98);
                    // The authors' 3e-5, times 16,384 / 256; CLIP's own for `clip`.
                    let expected = if method == "clip" { 5e-4 } else { 1.92e-3 };
                    let max = settings.optimizer.max_lr(settings.data.loading.batch_size);
                    assert!((max - expected).abs() < 1e-12, "{method}: {max}");
                }
            }
        }
        let released = Settings::read(&[preset("coco"), preset("released")], &more).unwrap();
        let settings = &released.objective;
        assert_eq!((settings.target, settings.query), (Target::Argmax, Query::Concept));
        assert_eq!((settings.tokens, settings.concepts), (Tokens::Unit, Scope::Rank));
        assert_eq!(released.optimizer.warmup_rounding, Rounding::Down);
        assert_eq!(released.bank.matching, concepts::Matching::Strict);
        // The arguments that the authors publish have [0.25, 1.0], but their code does not read it.
        assert_eq!(released.data.loading.scale, [0.9, 1.0]);
        assert_eq!(released.data.loading.flip, 0.0);
        // What the paper describes is the default: the preset changes nothing of it.
        let paper = Settings::read(&[preset("paper")], &more).unwrap();
        assert_eq!(paper.objective, crate::method::objective::ObjectiveSettings::default());
        assert_eq!(paper.optimizer, crate::method::optimizer::OptimizerSettings::default());
        // 10 epochs of 400,000 samples.
        assert_eq!(released.steps, 10 * 400_000 / released.data.loading.batch_size as u64);
    }

    /// Paths in the presets' comments are relative to the root of the repository.
    #[test]
    fn files_that_presets_mention_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut mentioned = 0;
        for entry in fs::read_dir(root.join("trainer/presets")).unwrap() {
            let preset = entry.unwrap().path();
            let text = fs::read_to_string(&preset).unwrap();
            let comments = text.lines().filter_map(|line| line.split_once('#')).map(|(_, comment)| comment);
            for word in comments.flat_map(str::split_whitespace) {
                let word = word.trim_matches(|c: char| !c.is_alphanumeric());
                if Path::new(word).extension().is_some_and(|extension| extension == "toml") {
                    assert!(root.join(word).is_file(), "{}: {word} does not exist", preset.display());
                    mentioned += 1;
                }
            }
        }
        assert!(mentioned >= 3, "{mentioned} files are mentioned");
    }

    #[test]
    fn only_the_wrong_setting_is_named() {
        let right = ["seed=3", "optimizer.lr=1e-4"];
        for (change, message) in [
            ("text.widht=64", "option `text.widht` is unknown; did you mean `text.width`?"),
            ("optimiser.lr=1", "option `optimiser` is unknown; did you mean `optimizer`?"),
            ("lr=1", "option `lr` is unknown; did you mean `optimizer.lr`?"),
            ("copy_to=s3://a/b", "did you mean `checkpoint.copy_to`?"),
            ("data.widow=9", "option `data.widow` is unknown; did you mean `data.window`?"),
            ("data.flip=2", "option `data.flip` must be a probability, 0 to 1"),
            ("data.cache={ foldr = 'x', limit = 1 }", "`data.cache.foldr` is unknown"),
            ("zzzzzz=1", "option `zzzzzz` is unknown; docs/settings.md"),
            (
                "objective.name=clap",
                "`objective.name` cannot be clap: it must be one of `simzss`, `lit`, `clip`, `talk2dino`; did you mean `clip`?",
            ),
            (
                "steps=many",
                "option `steps` cannot be many: invalid type: string \"many\", expected a whole number",
            ),
            ("text.heads=7", "option `text.heads` must divide text.width"),
            ("seed", "--set seed is not of the form key=value"),
            ("data.scale=[0.0, 1.0]", "option `data.scale` must be"),
            ("out.deep=1", "option `out.deep` is unknown: `out` is not a section"),
            ("data.cache.folder=x", "missing field `limit`"),
            ("log_every=0", "option `log_every` must be at least 1"),
        ] {
            let error = read(BASE, &[right[0], change, right[1]]).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(message) && !text.contains('\n'), "{change}: {text}");
            assert!(!text.contains("lr=1e-4") && !text.contains("seed=3"), "{change}: {text}");
            assert!(error.is_wrong_use(), "{change}: {text}");
        }
    }

    /// A checkpoint has the settings of its run as JSON.
    #[test]
    fn stored_settings_are_read_again() {
        let changes = ["seed=3", "data.scale=[0.3, 1.0]", "data.crop=centre", "data.features=f"];
        let settings = read(BASE, &changes).unwrap();
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
        let table = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<Settings>(&table).unwrap(), settings);
        assert!(text.contains("\"scale\":[0.3,1.0]"), "{text}");
        let newer = text.replace("\"streams\":64", "\"streams\":64,\"rivers\":1");
        let error = serde_json::from_str::<Settings>(&newer).unwrap_err().to_string();
        assert!(error.starts_with("unknown field `rivers`"), "{error}");
    }

    #[test]
    fn required_settings_are_asked_for() {
        for (text, message) in [
            ("", "option `out` (run folder) is missing; add --set out=DIR"),
            ("out = 'run'", "option `data.shards` (training shards) is missing; add --set data.shards="),
            (
                "out = 'run'\ndata.shards = ['s']",
                "option `vision.weights` (weights of the frozen vision tower)",
            ),
        ] {
            let error = read(text, &[]).unwrap_err();
            assert!(error.to_string().starts_with(message) && error.is_wrong_use(), "{error}");
        }
    }

    #[test]
    fn errors_in_files_have_a_line() {
        for (more, message) in [
            ("[text]\nwidht = 64\n", "run.toml, line 5: unknown setting `widht`; did you mean `width`?"),
            // The section `[data]` is read in two parts.
            ("data.widow = 9\n", "run.toml, line 4: unknown setting `widow`; did you mean `window`?"),
            ("data.featres = 'x'\n", "run.toml, line 4: unknown setting `featres`; did you mean `features`?"),
            (
                "data.size = 'big'\n",
                "run.toml, line 4: invalid type: string \"big\", expected a whole number",
            ),
            ("data.weights = 3\n", "run.toml, line 4: invalid type: integer `3`, expected a sequence"),
            ("steps = 'many'\n", "run.toml, line 4: invalid type: string \"many\", expected a whole number"),
            ("steps = \n", "run.toml, line 4: "),
        ] {
            let error = read(&format!("{BASE}{more}"), &[]).unwrap_err();
            assert!(error.to_string().contains(message) && error.is_wrong_use(), "{error}");
        }
        let gone = Settings::read(&[PathBuf::from("gone.toml")], &[]).unwrap_err();
        assert_eq!(gone.to_string(), "gone.toml does not exist");
    }
}
