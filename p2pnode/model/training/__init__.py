"""How the built-in model was made, from sampling the corpus to the exported folder.

Corpus: stories sampled from stories260k (MIT licence), see ``corpus``. Licence of the results:
Apache-2.0; the tokenizer's vocabulary is the teacher's. Run it with

    python -m p2pnode.model.training --teacher stories260k --work work --out out

Needs torch >= 2.9 for its Muon optimizer; serving does not. A killed run continues where its last
checkpoint was, when the same command is given again.
"""
