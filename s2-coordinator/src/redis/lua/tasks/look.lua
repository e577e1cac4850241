-- What there is to see of a task.

-- In whose queue or hands a task is.
local function session_of(rec)
  if rec.state == CLAIMED or rec.state == BLOCKED or rec.state == RESUMABLE then
    return rec.holder
  end
  return rec.state == READY and rec.assignee or ''
end

local function describe_task(rec)
  return {
    rec.id, rec.terms, read(rec.name16 .. 'd') or '', has(rec, FLAG.after) and read(rec.name16 .. 'f') or '', STATES[rec.state],
    rec.failures, session_of(rec),
  }
end

local function describe_outcome(rec)
  local said = has(rec, FLAG.outcome) and read(rec.name16 .. 'o') or ''
  if rec.state == DONE then
    return { 'done', said }
  elseif rec.state == CANCELLED then
    return { 'cancelled', said }
  end
  local cause = cmsgpack.unpack(said)
  return { 'failed', cause[1], cause[2], history_of(rec) }
end

-- These tasks and what they wait for, and so on, the nearest first, at most so many: number, state, session, whether one is
-- enough, since when somebody has blocked it or 0, whether that is so again, and what it waits for.
local function waiters(names, most)
  local seen_, next_, found = {}, {}, {}
  local function add(name)
    if not seen_[name] then
      seen_[name] = true
      next_[#next_ + 1] = name
    end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    add(name)
  end
  local nth, read_ahead = 1, 0
  while next_[nth] and #found < most do
    if nth > read_ahead then
      read_ahead = at_most(#next_, nth + most - #found - 1)
      local fields = {}
      for place = nth, read_ahead do
        local name = next_[place]
        fields[#fields + 1], fields[#fields + 2], fields[#fields + 3] = name, name .. 'w', name .. 'b'
      end
      fetch(fields)
    end
    local rec = find_named(next_[nth])
    if rec then
      local on, wait = {}, wait_of(rec)
      for place, edge in ipairs(waits_of(rec)) do
        on[place] = edge[1]
      end
      table.sort(on)
      for _, id in ipairs(on) do
        add(id16(id))
      end
      found[#found + 1] = {
        rec.id, STATES[rec.state], session_of(rec), wait and wait.any and 1 or 0, wait and wait.since or 0,
        wait and wait.again and 1 or 0, on,
      }
    end
    nth = nth + 1
  end
  return found
end
