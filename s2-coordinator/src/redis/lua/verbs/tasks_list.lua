-- tasks_list <after> <limit> <look at> <state> <kind> <parent> <session>: tasks, the last that was looked at, whether there are
-- more, and how many were looked at.
local function verb()
  open()
  local after, limit, most = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
  local state, kind, parent, session = ARGV[8], ARGV[9], tonumber(ARGV[10]), ARGV[11]
  local found, bytes, last = {}, 0, false
  local ids = call('ZRANGE', P .. 'ids', '(' .. after, '+inf', 'BYSCORE', 'LIMIT', 0, most + 1)
  for from = 1, at_most(#ids, most), 100 do
    local fields = {}
    for nth = from, at_most(from + 99, most) do
      fields[#fields + 1] = ids[nth]
    end
    fetch(fields)
    for nth = from, from + #fields - 1 do
      local rec = find_named(ids[nth])
      if rec and (state == '' or STATES[rec.state] == state) and (kind == '' or terms_of(rec).kind == kind) and
        (not parent or terms_of(rec).parent == parent) and (session == '' or session_of(rec) == session) then
        local described = describe_task(rec)
        found[#found + 1], bytes = described, bytes + #described[3]
      end
      last = tonumber(ids[nth])
      if #found >= limit or bytes > STEP_BYTES then
        return { 'ok', { found, last, nth < #ids and 1 or 0, nth } }
      end
    end
  end
  return { 'ok', { found, last, #ids > most and 1 or 0, at_most(#ids, most) } }
end
