//! The commands that write files, killed or failing at each of their changes of the file system.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::inject::{EVENTS, each, without_rights_or_descriptors};

use crate::program::{contents, text};
use crate::report::hostile_set;

/// What a command writes into a folder.
struct Case<'a> {
    name: &'a str,
    arguments: &'a dyn Fn(&Path) -> Vec<String>,
    /// Whether the command refuses to write where the files are already.
    refuses: bool,
}

impl Case<'_> {
    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tools"));
        command.args((self.arguments)(folder));
        command
    }

    fn complete(&self, folder: &Path, about: &str) {
        let output = self.command(folder).output().unwrap();
        assert!(output.status.success(), "{about}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn files_are_complete_or_not_there_wherever_a_command_stops() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    hostile_set(&at("set"));
    fs::create_dir(at("empty")).unwrap();
    let owned =
        |arguments: &[&str]| arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>();
    let out = |folder: &Path, name: &str| text(&folder.join(name)).to_owned();
    let set = text(&at("set")).to_owned();
    let stats = |folder: &Path| {
        owned(&[
            "stats",
            &set,
            "--out",
            &out(folder, "statistics"),
            "--classes",
            "crate, tree",
            "--threads",
            "1",
        ])
    };
    let statistics: PathBuf = at("statistics");
    let merge = |folder: &Path| owned(&["merge", text(&statistics), "--out", &out(folder, "merged")]);
    let report = |folder: &Path| owned(&["report", &set, "--out", &out(folder, "report.html")]);
    let scenes = |folder: &Path| {
        let (folder, sheet) = (out(folder, "scenes"), out(folder, "sheet.png"));
        owned(&[
            "scenes",
            "--out",
            &folder,
            "--sheet",
            &sheet,
            "--count",
            "2",
            "--size",
            "32",
            "--threads",
            "1",
        ])
    };
    let cases = [
        Case { name: "stats", arguments: &stats, refuses: true },
        Case { name: "merge", arguments: &merge, refuses: true },
        Case { name: "report", arguments: &report, refuses: false },
        Case { name: "scenes", arguments: &scenes, refuses: true },
    ];
    for case in &cases {
        without_rights_or_descriptors(case.name, Some(&at("empty")), &[4, 5, 6, 8, 12], &|folder| {
            case.command(folder)
        });
        let whole = at(case.name);
        fs::create_dir(&whole).unwrap();
        case.complete(&whole, "undisturbed");
        if case.name == "stats" {
            // For merge.
            fs::rename(whole.join("statistics"), &statistics).unwrap();
            case.complete(&whole, "undisturbed");
        }
        let expected: BTreeMap<String, Vec<u8>> = contents(&whole);
        for event in EVENTS {
            let count = each(event, Some(&at("empty")), &|folder| case.command(folder), &|folder, about| {
                let about = format!("{} {about}", case.name);
                for (name, bytes) in contents(folder) {
                    let hidden = name.starts_with(".tmp-");
                    assert!(hidden || expected.get(&name) == Some(&bytes), "{about}: {name} is not complete");
                }
                // The last change is the sync of the folder, after the files have their names.
                if !case.refuses || contents(folder) != expected {
                    case.complete(folder, &about);
                }
                assert!(contents(folder) == expected, "{about}: {:?}", contents(folder).keys());
            });
            println!("{}, {event}: {count} points", case.name);
            assert!(count == 0 || count > 4, "{}: {count}", case.name);
        }
    }
}
