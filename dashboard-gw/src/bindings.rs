//! The messages as TypeScript, in one file without imports.
//!
//! `make generate` writes the file; the test here fails when it isn't what the types give.

use std::path::Path;

use ts_rs::{Config, TS, TypeVisitor};

use crate::message::{ClientMessage, ServerMessage};

/// Set to 1 to write the file in place of comparing it.
const GENERATE: &str = "NODEBUS_GENERATE";

struct Declarations {
    config: Config,
    seen: Vec<String>,
    text: String,
}

impl TypeVisitor for Declarations {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        // Only types of a name of their own have a path.
        if T::output_path().is_none() || self.seen.contains(&T::ident(&self.config)) {
            return;
        }
        self.seen.push(T::ident(&self.config));
        let docs = T::docs().unwrap_or_default();
        let declaration = T::decl(&self.config);
        self.text += &format!("\n{docs}export {declaration}\n");
        T::visit_dependencies(self);
    }
}

fn declarations() -> String {
    let mut declarations = Declarations {
        config: Config::new().with_large_int("number"),
        seen: Vec::new(),
        text:
            "// Made by `make generate` from dashboard-gw/src/message.rs and bus/src/payload.rs.\n"
                .to_owned(),
    };
    declarations.visit::<ServerMessage>();
    declarations.visit::<ClientMessage>();
    let lines: Vec<_> = declarations.text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

#[test]
fn the_page_has_the_types_of_these_messages() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/src/__generated__/messages.ts");
    let wanted = declarations();
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
