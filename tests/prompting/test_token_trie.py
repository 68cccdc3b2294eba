"""The token trie: where it has decided."""

from causal_lm_router.prompting.token_trie import cut_when_decided, make_trie


def test_cut_when_decided() -> None:
    trie = make_trie([(9, 5, 6, 2), (9, 5, 7, 8, 2), (9, 4, 2), (9, 4, 3, 3, 2), (1, 1, 2)])
    assert cut_when_decided(trie).sequences == ((9, 5, 6), (9, 5, 7), (9, 4, 2), (9, 4, 3), (1,))
    assert cut_when_decided(make_trie([(4, 5, 2)])).sequences == ((4,),), "a pool of one has a token still"
