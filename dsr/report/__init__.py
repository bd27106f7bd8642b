"""Reports: the pages of an evaluation, a study and a store. What they share is in `pages` and `figures`."""
