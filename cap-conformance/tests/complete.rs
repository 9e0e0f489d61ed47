//! Every case that is written is also in the suite's list: one that is forgotten there would never run.

use std::fs;
use std::path::Path;

#[test]
fn every_case_is_in_the_macros() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let macros = fs::read_to_string(sources.join("lib.rs")).unwrap();
    let mut cases = 0;
    for family in ["sql", "storage", "transport"] {
        for file in fs::read_dir(sources.join(family)).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            for case in text.lines().filter_map(|line| line.strip_prefix("pub async fn ")) {
                let name = case.split('<').next().unwrap();
                assert!(macros.contains(&format!(" {name},\n")), "{family}: {name} is in no list");
                cases += 1;
            }
        }
    }
    assert!(cases > 90, "{cases} cases found: where are the others?");
}
