-- Tasks that wait for each other, or for too long.
--
-- A step that takes a way out from a task looks a little whether that one may wait for itself from now on. If it may, it is a
-- suspect: `rings` has them by a number that rises each time. Whichever process hears of it reads what the task waits for, finds
-- the ring, and says who is to go on, which another step does if the ring is still there.

do

-- How many edges a step looks at, along what a task waits for and along what waits for it.
local MOST_LOOKS = 100
local suspects, marked = {}, false

function deadlock.begin()
  suspects, marked = {}, false
end

-- A task has lost a way out.
function deadlock.suspect(rec)
  suspects[#suspects + 1] = rec
end

-- Searches from both sides at once: most often one of them ends soon.
local function may_wait_for_itself(rec)
  local seen_, left, looks = { {}, {} }, { { rec }, { rec } }, { 0, 0 }
  while true do
    for side = 1, 2 do
      local at = left[side] and table.remove(left[side])
      if left[side] and not at then
        return false
      end
      local names = {}
      if at and side == 1 then
        for nth, edge in ipairs(waits_of(at)) do
          names[nth] = id16(edge[1])
        end
      elseif at and has(at, FLAG.lends) then
        names = call('ZRANGE', P .. 'lends:' .. int(at.id), 0, MOST_LOOKS)
      end
      looks[side] = looks[side] + #names
      if looks[side] > MOST_LOOKS then
        -- Here it takes too long.
        left[side], names = false, {}
        if not left[1] and not left[2] then
          return true
        end
      end
      for _, name in ipairs(names) do
        local other = not seen_[side][name] and find_named(name)
        seen_[side][name] = true
        if name == rec.name16 then
          return true
        elseif other and not is_finished(other) then
          table.insert(left[side], other)
        end
      end
    end
  end
end

-- Marks those who may wait for themselves.
function deadlock.mark()
  for _, rec in ipairs(suspects) do
    local waits = rec.state == BLOCKED or rec.state == WAITING
    if waits and (has_chores() or may_wait_for_itself(rec)) then
      marked = true
      M.suspects, M.changed = M.suspects + call('ZADD', P .. 'rings', number(), rec.name16), true
    end
  end
  suspects = {}
end

-- Whether there are suspects: 0 no, 1 yes, 2 since this step.
function deadlock.word()
  return M.suspects == 0 and 0 or marked and 2 or 1
end

-- A suspect was looked at, unless there is more to look at by now.
function deadlock.clear(name16, mark)
  if tonumber(call('ZSCORE', P .. 'rings', name16) or -1) == mark then
    M.suspects, M.changed = at_least(M.suspects - call('ZREM', P .. 'rings', name16), 0), true
  end
end

-- Asks a person about a task. If there are too many such questions already, what the journal says must do.
function deadlock.ask(what, id, reason, ids)
  escalate { key = what .. ':' .. int(id), reason = reason, payload = quoted(ids), severity = 'HIGH' }
end

-- A task waits for nothing but a person any more.
function deadlock.leave_to_a_person(rec, cycle)
  deadlock.ask('deadlock', rec.id, 'tasks wait for each other, and none may go on', cycle)
  if rec.state == WAITING then
    -- Its session is gone: there is nobody to wait.
    return deadlock.preempt(rec, cycle)
  end
  drop_edges(rec)
  local said = cmsgpack.unpack(read(rec.name16 .. 'b'))
  said[6] = cycle
  write(rec.name16 .. 'b', cmsgpack.pack(said))
end

-- A task that somebody has blocked goes on without what it waits for.
function deadlock.preempt(rec, cycle)
  local wait = wait_of(rec)
  local waited = now - wait.since
  note('preempted', rec, '"session":"' .. rec.holder .. '","cycle":' .. quoted(cycle) .. ',"waited_ms":' ..
    int(math.floor(waited / 1000)), 'HIGH')
  drop_edges(rec)
  write(rec.name16 .. 'p', cmsgpack.pack({ 1, waited, cycle, rec.failures, wait.reason, answers_of(rec) }))
  with(rec, FLAG.released)
  if rec.state == BLOCKED then
    move(rec, RESUMABLE, function() rec.till = now + C.resume_window end)
  else
    -- Its session is gone, and others take it up.
    make_ready(rec, now)
  end
  progress.moved()
  tell(rec)
end

-- How a task was last released from what it was blocked by, if it was: whether it has not been blocked since, how long it had
-- waited, the ring, after how many failures, the reason and what it waited for.
function deadlock.released(rec)
  return has(rec, FLAG.released) and cmsgpack.unpack(read(rec.name16 .. 'p')) or nil
end

-- A task is blocked: whether by what it was released from in the same attempt. New help is told by the reason.
function deadlock.is_again(rec, waits, reason)
  local before_ = deadlock.released(rec)
  if not before_ then
    return false
  end
  local again = before_[5] == reason
  local from = {}
  for _, id in ipairs(before_[6]) do
    from[id] = true
  end
  for _, id in ipairs(waits) do
    again = again or from[id] == true
  end
  before_[1] = 0
  write(rec.name16 .. 'p', cmsgpack.pack(before_))
  return again and before_[4] == rec.failures
end

end
