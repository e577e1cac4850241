//! The work, and the bug in it.

/// Calculates sums in reverse Polish notation: `3 4 + 5 *` is 35.
#[derive(Debug, Default)]
pub(crate) struct Calculator {
    stack: [i64; 16],
    used: usize,
}

impl Calculator {
    /// What a sum comes to. It stays on the stack: that is the bug.
    ///
    /// # Panics
    ///
    /// When the stack is full, when a number is divided by nothing, and for what is no sum.
    pub(crate) fn calculate(&mut self, sum: &str) -> i64 {
        for word in sum.split(' ') {
            let number = match word {
                "+" => self.pop() + self.pop(),
                "*" => self.pop() * self.pop(),
                "/" => {
                    let by = self.pop();
                    self.pop() / by
                }
                number => number.parse().expect("a number"),
            };
            self.push(number);
        }
        self.stack[self.used - 1]
    }

    fn push(&mut self, number: i64) {
        self.stack[self.used] = number;
        self.used += 1;
    }

    fn pop(&mut self) -> i64 {
        self.used -= 1;
        self.stack[self.used]
    }
}
