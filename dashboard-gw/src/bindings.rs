//! The messages as TypeScript, in one file without imports.
//!
//! `make generate` writes the file; the test here fails when it isn't what the types give.

use std::collections::BTreeMap;
use std::path::Path;

use ts_rs::{Config, TS, TypeVisitor};

use crate::message::{ClientMessage, ServerMessage};

/// Set to 1 to write the file in place of comparing it.
const GENERATE: &str = "NODEBUS_GENERATE";

/// The declarations by name, since ts-rs visits in no order of its own.
struct Declarations {
    config: Config,
    by_name: BTreeMap<String, String>,
}

impl TypeVisitor for Declarations {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        // Only types of a name of their own have a path.
        if T::output_path().is_none() {
            return;
        }
        let name = T::ident(&self.config);
        if self.by_name.contains_key(&name) {
            return;
        }
        let docs = T::docs().unwrap_or_default();
        let declaration = T::decl(&self.config);
        let text = format!("\n{docs}export {declaration}\n");
        self.by_name.insert(name, text);
        T::visit_dependencies(self);
    }
}

fn typescript() -> String {
    let mut declarations = Declarations {
        config: Config::new().with_large_int("number"),
        by_name: BTreeMap::new(),
    };
    declarations.visit::<ServerMessage>();
    declarations.visit::<ClientMessage>();
    let head =
        "// Made by `make generate` from dashboard-gw/src/message.rs and bus/src/payload.rs.";
    let text: String = declarations.by_name.into_values().collect();
    let lines = text.lines().map(str::trim_end);
    [head]
        .into_iter()
        .chain(lines)
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn the_page_has_the_types_of_these_messages() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/src/__generated__/messages.ts");
    let wanted = typescript();
    if std::env::var(GENERATE).is_ok_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} is not what the types give: run `make generate`",
        path.display()
    );
}
