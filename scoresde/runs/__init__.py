r"""Runs: from the options of a public function ("verb") to the solution."""
