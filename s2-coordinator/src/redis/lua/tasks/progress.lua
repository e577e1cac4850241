-- A fleet that stands still.

do

-- Something has moved.
function progress.moved()
  T.progress = now
  T.flat = T.flat == 2 and 1 or T.flat
end

-- When the fleet has stood still for too long; never, if there is nothing to do, or a person knows already.
function progress.flat_at()
  return T.flat == 1 and at_most(T.progress + C.flatline, NEVER) or NEVER
end

-- Notices when there is something to do again.
function progress.watch()
  if T[READY] + T[CLAIMED] + T[BLOCKED] == 0 then
    T.flat = 0
  elseif T.flat == 0 then
    T.flat, T.progress = 1, now
  end
  note_due(progress.flat_at())
end

-- Nothing has moved for too long.
function progress.flatline()
  if progress.flat_at() > now then
    return
  end
  T.flat = 2
  journal {
    component = 'fleet', operation = 'flatline', subject = 'fleet', severity = 'HIGH',
    params = { 'idle_ms', math.floor((now - T.progress) / 1000), 'unfinished', T[0] + T[1] + T[2] + T[3] + T[4] + T[5] },
  }
  escalate { key = 'flatline', reason = 'nothing has moved for too long', payload = '', severity = 'HIGH' }
end

end
