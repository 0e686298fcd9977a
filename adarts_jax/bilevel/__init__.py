"""The bilevel problem: gradients, the two steps, optimizers and schedules."""
