//! What is claimed is checked.

/// Claims, and whether they hold.
#[derive(Debug, Default)]
#[must_use = "a check that nobody looks at is none"]
pub(crate) struct Checks(Vec<(String, bool)>);

impl Checks {
    /// Adds a claim.
    pub(crate) fn that(&mut self, claim: impl Into<String>, holds: bool) {
        self.0.push((claim.into(), holds));
    }

    /// Says which hold. Answers whether all do.
    pub(crate) fn print(&self) -> bool {
        println!("\nChecked:");
        for (claim, holds) in &self.0 {
            println!("  {} {claim}", if *holds { "holds:" } else { "WRONG:" });
        }
        self.0.iter().all(|(_, holds)| *holds)
    }
}
