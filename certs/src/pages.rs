//! What is generated from the command line itself: completions of shells and manual pages.

use std::path::Path;

use certs::Error;
use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::json;

use crate::cli::Args;
use crate::commands::Said;

pub(crate) fn completions(shell: Shell) -> Result<Said, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "certgen", &mut script);
    let text = String::from_utf8_lossy(&script).into_owned();
    Said::new(&json!({ "completions": text }), text.clone())
}

pub(crate) fn man(folder: &Path) -> Result<Said, Error> {
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Args::command(), folder));
    written.map_err(|source| Error::File {
        action: "written",
        path: folder.to_owned(),
        remedy: "name a folder that you may write to",
        source,
    })?;
    let place = folder.display();
    let text = format!("Wrote the manual pages into {place}.\nNext: man {place}/certgen.1\n");
    Said::new(&json!({ "folder": folder }), text)
}
