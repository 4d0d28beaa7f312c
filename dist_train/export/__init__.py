"""A trained run -> a file that others run: ONNX, a program of torch, or weights; waveform in, probabilities out.

    waveform --windows--> --features--> --norm--> network --> mean over the windows --> probabilities, embedding
    \\___________________________ graph: one nn.Module, checked beside the run ______________________________/

`graph` is what becomes a file, in plain operations on tensors of any batch and length: `cut` finds the windows,
`spectra` makes the features. `facts` is what a file says of itself, `beside` compares a file's answers with the run's,
`small` takes an ONNX file's weights to 8 or 16 bits.
"""
