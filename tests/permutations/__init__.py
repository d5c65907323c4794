"""What counterparties say, in any order and any number of times, ends as if it had been said in order once."""
