//! Checks what the product stands on, without a network: every crate's licence is on the list, and no crate is there
//! in two versions without a reason.
//!
//! `cargo run -p clawbernetes-audit`

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Command, ExitCode},
};

use serde::Deserialize;

/// Licences that let the product be given to anyone under Apache-2.0.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Zlib",
    "0BSD",
    "CC0-1.0",
    "Unicode-3.0",
    "Unlicense",
];

/// The machine that the product is built for.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Crates that are there in more than one version, and why nothing can be done about it.
const DOUBLED: &[(&str, &str)] = &include!("doubled.in");

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// Whether a licence expression can be met with the list: any side of an `OR`, all sides of an `AND`.
fn allowed(expression: &str) -> bool {
    let text = expression.replace('/', " OR ");
    text.split(" OR ").any(|side| {
        side.split(" AND ").all(|part| {
            let part = part.trim().trim_matches(['(', ')']);
            LICENCES.contains(&part)
        })
    })
}

/// What one of cargo's own commands prints.
fn cargo(arguments: &[&str]) -> Result<String, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(arguments)
        .args(["--locked"])
        .output()
        .map_err(|error| format!("cargo {} can't be run: {error}", arguments[0]))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo {} failed: {said}", arguments[0]));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("cargo {} can't be read: {error}", arguments[0]))
}

/// All crates that the lock file names; some of them no feature asks for, and they are never built.
fn metadata() -> Result<Metadata, String> {
    let text = cargo(&["metadata", "--format-version", "1", "--filter-platform", TARGET])?;
    serde_json::from_str(&text).map_err(|error| format!("cargo metadata can't be read: {error}"))
}

/// Name and version of the crates that are built, tests and build scripts included.
fn built() -> Result<BTreeSet<(String, String)>, String> {
    let format = ["--prefix", "none", "--format", "{p}", "--edges", "normal,build,dev"];
    let text = cargo(&[&["tree", "--workspace", "--target", TARGET], &format[..]].concat())?;
    let crates = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
    });
    Ok(crates.collect())
}

fn audit(metadata: &Metadata, built: &BTreeSet<(String, String)>) -> Vec<String> {
    let packages = metadata
        .packages
        .iter()
        .filter(|package| built.contains(&(package.name.clone(), package.version.clone())));
    let mut found = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().insert(&package.version);
        match &package.license {
            Some(licence) if allowed(licence) => {}
            Some(licence) => found.push(format!(
                "{} {}: licence {licence} isn't on the list",
                package.name, package.version
            )),
            None => found.push(format!("{} {}: names no licence", package.name, package.version)),
        }
        if package
            .source
            .as_ref()
            .is_some_and(|source| !source.starts_with("registry+"))
        {
            found.push(format!(
                "{} {}: doesn't come from a registry",
                package.name, package.version
            ));
        }
    }
    let doubled: Vec<_> = versions.iter().filter(|(_, versions)| versions.len() > 1).collect();
    for (name, versions) in &doubled {
        if !DOUBLED.iter().any(|(known, _)| known == *name) {
            let versions: Vec<&str> = versions.iter().copied().collect();
            found.push(format!("{name} is there in several versions: {}", versions.join(", ")));
        }
    }
    for (name, _) in DOUBLED {
        if !doubled.iter().any(|(found, _)| *found == name) {
            found.push(format!("{name} is no longer there twice: take it off the list"));
        }
    }
    found
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what the program is for"
)]
fn main() -> ExitCode {
    let found = match metadata().and_then(|metadata| Ok((metadata, built()?))) {
        Ok((metadata, built)) => audit(&metadata, &built),
        Err(error) => vec![error],
    };
    for line in &found {
        eprintln!("{line}");
    }
    if found.is_empty() {
        println!("licences and versions are in order");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions() {
        assert!(
            allowed("MIT OR Apache-2.0") && allowed("MIT/Apache-2.0") && allowed("(MIT OR GPL-3.0) AND Unicode-3.0")
        );
        assert!(allowed("GPL-3.0 OR MIT") && !allowed("GPL-3.0") && !allowed("MIT AND GPL-3.0"));
    }
}
