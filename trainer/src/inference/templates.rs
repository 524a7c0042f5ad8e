//! Prompt templates for class names; the embedding of a class is the mean over the templates.

use std::path::Path;

use storage::read_text;

use crate::error::{Error, Result};

/// The 80 ImageNet templates of OpenAI's CLIP, one per line, with `{}` for the name.
const IMAGENET: &str = include_str!("../../data/imagenet_templates.txt");

/// Seven of these, with an article that differs in one, as TCL and Talk2DINO use them.
const IMAGENET_7: &str = include_str!("../../data/imagenet7_templates.txt");
/// What TCL adds to them.
const PLURAL: &str = "a photo of many {}.\na photo of {}s.";

/// What MaskCLIP adds to the 80.
const IN_THE_SCENE: [&str; 5] = ["there is a", "there is the", "this is a", "this is the", "this is one"];

/// Templates by name (`imagenet`: the 80 of CLIP; `imagenet7`: seven of these; `tcl9`: the seven and two with plurals; `maskclip85`: the 80
/// and five that end with "in the scene."; `simple`: "a photo of a {}.") or from a file with one per line.
pub fn read(name: &str) -> Result<Vec<String>> {
    let text = match name {
        "imagenet" => IMAGENET.to_owned(),
        "imagenet7" => IMAGENET_7.to_owned(),
        "tcl9" => format!("{IMAGENET_7}{PLURAL}"),
        "maskclip85" => {
            let scenes = IN_THE_SCENE.map(|start| format!("\n{start} {{}} in the scene."));
            format!("{IMAGENET}{}", scenes.concat())
        }
        "simple" => "a photo of a {}.".to_owned(),
        path => read_text(Path::new(path))?,
    };
    let templates: Vec<String> =
        text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect();
    match templates.iter().find(|t| !t.contains("{}")) {
        None if !templates.is_empty() => Ok(templates),
        without => Err(Error::Invalid {
            path: name.into(),
            problem: without
                .map_or("contains no template".to_owned(), |t| format!("template {t:?} has no {{}}")),
        }),
    }
}
