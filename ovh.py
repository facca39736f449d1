import numpy as np, polyai as pa, time
from benchmarks.peers.polyai_peer import MODELS, any_rows
from benchmarks.suites.dynamic import weights_of
import cProfile,pstats
width,W=weights_of('block')
f=pa.jit(lambda x,w: x*w['g1'][:1], constant=('w',))
X=np.ones((2,256),np.float32)
for name,c in (("const",f),("plain",pa.jit(lambda x,w: x*w['g1'][:1]))):
    c(X,W);c(X,W);c(X,W)
    t=time.perf_counter()
    for _ in range(2000): c(X,W)
    print(name,(time.perf_counter()-t)/2000*1e6,"us")
with pa.options(num_threads=1):
    h,c=any_rows('block',W); c(X);c(X);c(X)
    p=cProfile.Profile(); p.enable()
    for _ in range(500): c(X)
    p.disable(); pstats.Stats(p).sort_stats('tottime').print_stats(14)
    p=cProfile.Profile(); p.enable()
    print(h.report())
