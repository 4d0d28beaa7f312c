"""Sound as it comes, from a microphone or a pipe -> labels while it sounds (tools/listen.py), takes (tools/record.py).

microphone, pipe -> flow -> converter -> ring -> listener -> debounce -> keeping (WAV), action (commands)
                                      -> trigger -> take (WAV in class folders)
"""
