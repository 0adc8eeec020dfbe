r"""A page on which solvers are tried by hand, which needs gradio: `pip install 'scoresde[playground]'`."""
