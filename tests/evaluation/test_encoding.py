from evaluation.encoding import Request, cut, encode_pair


class Words:
    """A tokenizer of words and spaces, enough to see what goes where."""

    def encode(self, text):
        return text.replace(" ", " _").split()


def test_spaces_at_the_end_of_the_prompt_move_to_the_continuation():
    assert encode_pair(Words(), "Answer: ", "A") == (["Answer:"], ["_A"])
    assert encode_pair(Words(), "Answer:", " A") == (["Answer:"], ["_A"])


def test_cut_keeps_the_end_of_the_prompt():
    request = Request([1, 2, 3, 4, 5], [[6], [7, 8, 9]])
    assert request.input_length == 7
    assert cut(request, 7) is request
    assert cut(request, 5).prompt == [3, 4, 5]
    assert cut(request, 1).prompt == [5]
